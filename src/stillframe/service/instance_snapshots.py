"""The use cases of instance snapshots: every check comes first, then one transaction, then the work is handed on."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from stillframe.domain import omission
from stillframe.domain.arguments import (
    Action,
    Arguments,
    CreateArguments,
    DeleteArguments,
    RestoreAction,
    RestoreArguments,
)
from stillframe.domain.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    NotSupported,
    OlderDatabase,
    Refused,
    StillframeError,
)
from stillframe.domain.instance import Instance, PowerState
from stillframe.domain.operation import Operation, OperationState, Progress
from stillframe.domain.snapshot import ConsistencyLevel, InstanceSnapshot, achieved, too_little
from stillframe.domain.status import Event, Status, advance
from stillframe.drivers.storage import StorageDriver
from stillframe.logs.context import about
from stillframe.service.caller import Caller
from stillframe.service.held_guests import HeldGuests
from stillframe.service.instances import InstanceService
from stillframe.service.policy import Policy
from stillframe.store.operations import OperationStore
from stillframe.store.snapshots import ListQuery, SnapshotStore

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What an accepted request is answered with: the snapshot and the operation (`task_id`) that works on it.

    `notice` says what will be otherwise than the caller may expect, though the request is carried out.
    """

    snapshot_id: str
    action: Action
    task_id: str
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class SnapshotService:
    """The operations of the API, for a caller.

    `submit` hands an operation's id to the engine after its transaction; should that be lost, the engine finds the
    operation in the store. `measure` says how far an operation is. `now` is UTC, without a
    zone; `deadlines` go by action. `held` says which guests may be held still.
    """

    snapshots: SnapshotStore
    operations: OperationStore
    storage: StorageDriver
    instances: InstanceService
    policy: Policy
    submit: Callable[[str], None]
    measure: Callable[[Operation], Progress]
    now: Callable[[], datetime]
    deadlines: Mapping[Action, timedelta]
    held: HeldGuests

    def create(
        self,
        caller: Caller,
        instance_id: str,
        name: str,
        description: str,
        volumes: Sequence[str],
        minimum: ConsistencyLevel = ConsistencyLevel.NONE,
    ) -> Accepted:
        """Accept a new snapshot of all volumes of an instance, or of those named.

        Raises `InvalidInput` for a volume that is not attached, `Refused` where the driver cannot cut it or the cut
        cannot reach the minimum, `Conflict`.
        """
        instance = self.instances.get_instance(caller, instance_id, "snapshot:create")
        chosen = _choose_volumes(instance, volumes)
        self.instances.require_volumes(caller, chosen)
        with self._unless_busy(instance_id):
            self.instances.require_no_switching(instance, "snapshot")
            self._require_reachable(instance, chosen, minimum)
            self.storage.check_cut(instance, chosen)
        snapshot_id = str(uuid.uuid4())
        asked = CreateArguments(chosen, minimum)
        operation = self._operation(caller, asked, snapshot_id, instance.project_id, instance_id, chosen)
        snapshot = InstanceSnapshot(
            id=snapshot_id,
            project_id=instance.project_id,
            user_id=caller.user_id,
            instance_id=instance_id,
            name=name,
            description=description,
            status=Status.CREATING,
            created_at=operation.created_at,
            task_id=operation.id,
            action=operation.action.value,
            minimum_consistency=minimum,
        )
        self.operations.begin_create(snapshot, operation)
        return self._hand_on(operation)

    def list(self, caller: Caller, query: ListQuery, *, all_projects: bool = False) -> Sequence[InstanceSnapshot]:
        """One page; `query.project_id` is set here, from what the caller may see."""
        self.policy.require(caller, "snapshot:list", caller.project_id)
        if all_projects:
            self.policy.require(caller, "snapshot:list_all_projects", caller.project_id)
        return self.snapshots.list(replace(query, project_id=None if all_projects else caller.project_id))

    def show(self, caller: Caller, snapshot_id: str) -> InstanceSnapshot:
        return self._visible(caller, snapshot_id, "snapshot:show")

    def may_be_held(self, snapshot: InstanceSnapshot) -> bool | None:
        """Whether the instance's guest may be held still though nobody works on it; None where nobody can tell."""
        last = snapshot.updated_at or snapshot.created_at
        held = self.held.ids((self.now() - last).total_seconds())
        return None if held is None else snapshot.instance_id in held

    def update(self, caller: Caller, snapshot_id: str, changes: Mapping[str, str]) -> None:
        """Change `name` and/or `description`; raises `Conflict` while an operation has the snapshot."""
        self._visible(caller, snapshot_id, "snapshot:update")
        self.snapshots.rename(snapshot_id, changes, self.now())

    def delete(self, caller: Caller, snapshot_id: str) -> Accepted:
        """Accept the deletion of a snapshot with everything that belongs to it."""
        snapshot = self._visible(caller, snapshot_id, "snapshot:delete")
        self.operations.require_latest()
        with self._unless_busy(snapshot.instance_id):
            advance(snapshot.status, Event.DELETE)
        operation = self._operation(
            caller,
            DeleteArguments(),
            *(snapshot_id, snapshot.project_id, snapshot.instance_id),
            snapshot.snapshots or (),
        )
        self.operations.begin(operation, Event.DELETE, snapshot.status, fence=False)
        return self._hand_on(operation)

    def restore(self, caller: Caller, instance_id: str, snapshot_id: str, *, force: bool) -> Accepted:
        """Accept a restore of all volumes of a snapshot; raises `Refused` where it cannot be done."""
        instance, snapshot = self._restorable(caller, instance_id, snapshot_id, "snapshot:restore")
        return self._begin_restore(
            caller, instance, snapshot, Action.RESTORE, Event.RESTORE, snapshot.snapshots, force=force
        )

    def retry(self, caller: Caller, instance_id: str, snapshot_id: str, *, force: bool) -> Accepted:
        """Accept another restore of the volumes whose restore failed."""
        instance, snapshot = self._restorable(caller, instance_id, snapshot_id, "snapshot:retry")
        return self._begin_restore(
            caller, instance, snapshot, Action.RETRY, Event.RETRY, snapshot.failed_snapshots, force=force
        )

    def rollback(self, caller: Caller, instance_id: str, snapshot_id: str, *, force: bool) -> Accepted:
        """Accept that every volume goes back to its safety copy."""
        instance, snapshot = self._restorable(caller, instance_id, snapshot_id, "snapshot:rollback")
        self.operations.require_latest()
        doubtful = snapshot.fault is not None and snapshot.fault.code == OlderDatabase.code
        if doubtful and snapshot.status is Status.RESTORE_ERROR and snapshot.temp_snapshots is None:
            raise Refused(
                "Nobody knows which safety copies are the right ones, for an older state of the service's database was "
                "put back. Retry the restore, or delete this instance snapshot and restore to another one."
            )
        # Where there are no safety copies, no volume has been touched, and there is only the instance to give back.
        return self._begin_restore(
            caller, instance, snapshot, Action.ROLLBACK, Event.ROLLBACK, snapshot.temp_snapshots, force=force
        )

    def progress(self, caller: Caller, action: str, task_id: str, snapshot_id: str) -> Progress:
        """How far a task is; raises `NotFound` unless all three fit together and the caller may see it."""
        operation = self.operations.get(task_id)
        fits = operation.action.value == action and operation.snapshot_id == snapshot_id
        if not fits or not self._sees(caller, operation.project_id):
            raise NotFound(f"Task {task_id} could not be found.")
        self.policy.require(caller, "snapshot:progress", operation.project_id)
        asked = operation.arguments
        measured = self.measure(operation)
        if isinstance(asked, RestoreArguments):
            return replace(measured, plan=asked.plan, omissions=asked.omissions)
        return measured

    def _require_reachable(self, instance: Instance, volume_ids: Sequence[str], minimum: ConsistencyLevel) -> None:
        stillness = self.instances.compute.outlook(instance.id)
        level = stillness.level
        if not level.reaches(minimum):
            one = len(volume_ids) == 1 or self.storage.simultaneous(instance, volume_ids)
            level = achieved(level, at_one_instant=one)
        if not level.reaches(minimum):
            what = too_little(level, stillness.reason, minimum)
            raise Refused(f"{what} Ask for less, or mend what keeps it from more.")

    def _begin_restore(
        self,
        caller: Caller,
        instance: Instance,
        snapshot: InstanceSnapshot,
        action: RestoreAction,
        event: Event,
        copies: Mapping[str, str] | None,
        *,
        force: bool,
    ) -> Accepted:
        wanted = copies or {}
        self.instances.require_volumes(caller, wanted)
        self.operations.require_latest()
        with self._unless_busy(instance.id):
            advance(snapshot.status, event)
            self.instances.require_unlocked(instance)
            self.instances.require_no_switching(instance, "restore")
            self._require_off_or_to_be_stopped(instance, force=force)
            _require_attached(instance, wanted)
            done = snapshot.untouched if action is Action.ROLLBACK else frozenset()
            due = {volume_id: copy_id for volume_id, copy_id in wanted.items() if volume_id not in done}
            plan = {**dict.fromkeys(wanted, "untouched"), **self.storage.check_restore(instance, due)}
        # A restore that came to no safety copies is retried with taking them.
        fresh = action is Action.RESTORE or snapshot.temp_snapshots is None
        asked = RestoreArguments(action, dict(wanted), force, fresh, plan, _omissions(instance, snapshot))
        operation = self._operation(caller, asked, snapshot.id, snapshot.project_id, instance.id, wanted)
        notice = self._stays_off(instance)
        self.operations.begin(operation, event, snapshot.status, fence=True)
        return replace(self._hand_on(operation), notice=notice)

    def _stays_off(self, instance: Instance) -> str | None:
        if instance.power_state is PowerState.SHUTOFF:
            return None
        try:
            self.instances.compute.check_power(instance.id, PowerState.ACTIVE)
        except NotSupported as problem:
            return f"The instance is shut down for this and stays off: {problem.message}"
        except StillframeError as problem:
            # Whether it can be started is seen when it is: this may have passed by then.
            LOG.info("whether instance %s can be started is not known: %s", instance.id, problem)
        return None

    def _require_off_or_to_be_stopped(self, instance: Instance, *, force: bool) -> None:
        if instance.unsettled is not None:
            raise Conflict(instance.unsettled)
        if instance.power_state is PowerState.SHUTOFF:
            return
        if not force:
            first = "let it run again and " if instance.power_state is PowerState.PAUSED else ""
            raise Refused(
                f"Instance {instance.id} is {instance.power_state.value}: {first}shut it off first, or set 'force' to "
                "have it shut down for the restore and started again after it."
            )
        self.instances.compute.check_power(instance.id, PowerState.SHUTOFF)

    @contextmanager
    def _unless_busy(self, instance_id: str) -> Iterator[None]:
        """What is refused while another operation has the instance is refused for that reason: its state will pass.

        Raises `Conflict`.
        """
        self.operations.require_free(instance_id)
        try:
            yield
        except Refused:
            # One may have begun since.
            self.operations.require_free(instance_id)
            raise

    def _restorable(
        self, caller: Caller, instance_id: str, snapshot_id: str, rule: str
    ) -> tuple[Instance, InstanceSnapshot]:
        instance = self.instances.get_instance(caller, instance_id, rule)
        snapshot = self._visible(caller, snapshot_id, rule)
        if snapshot.instance_id != instance_id:
            raise InvalidInput(
                f"instance snapshot {snapshot_id} is not one of instance {instance_id}",
                "vm-restore.instance_snapshot_id",
            )
        return instance, snapshot

    def _visible(self, caller: Caller, snapshot_id: str, rule: str) -> InstanceSnapshot:
        snapshot = self.snapshots.get(snapshot_id)
        if not self._sees(caller, snapshot.project_id):
            raise NotFound(f"Instance snapshot {snapshot_id} could not be found.")
        self.policy.require(caller, rule, snapshot.project_id)
        return snapshot

    def _sees(self, caller: Caller, project_id: str) -> bool:
        return project_id == caller.project_id or self.policy.allows(caller, "admin", project_id)

    def _operation(
        self,
        caller: Caller,
        asked: Arguments,
        snapshot_id: str,
        project_id: str,
        instance_id: str,
        volume_ids: Collection[str],
    ) -> Operation:
        now = self.now()
        return Operation(
            id=str(uuid.uuid4()),
            arguments=asked,
            snapshot_id=snapshot_id,
            project_id=project_id,
            instance_id=instance_id,
            request_id=caller.request_id,
            state=OperationState.PENDING,
            created_at=now,
            deadline=now + self.deadlines[asked.action],
            # A deletion may be of an instance that is long gone, and no work for its host.
            limit_keys=self.instances.limit_keys(None if asked.action is Action.DELETE else instance_id, volume_ids),
        )

    def _hand_on(self, operation: Operation) -> Accepted:
        with about(operation.request_id, operation.id):
            LOG.info(
                "accepted %s of instance snapshot %s as task %s", operation.action, operation.snapshot_id, operation.id
            )
        self.submit(operation.id)
        return Accepted(operation.snapshot_id, operation.action, operation.id)


def _omissions(instance: Instance, snapshot: InstanceSnapshot) -> tuple[omission.Omission, ...]:
    told = None if snapshot.consistency is None else snapshot.consistency.omissions
    return omission.at_a_restore(instance, snapshot.snapshots or {}, told)


def _choose_volumes(instance: Instance, wanted: Sequence[str]) -> tuple[str, ...]:
    attached = instance.volume_ids
    for position, volume_id in enumerate(wanted):
        if volume_id not in attached:
            raise InvalidInput(
                f"volume {volume_id} is not attached to instance {instance.id}", f"vm-snapshot.volumes.{position}"
            )
    chosen = tuple(volume_id for volume_id in attached if volume_id in wanted) if wanted else attached
    if not chosen:
        raise Refused(f"Instance {instance.id} has no volumes attached that a snapshot could be taken of; attach one.")
    return chosen


def _require_attached(instance: Instance, volume_ids: Collection[str]) -> None:
    detached = [volume_id for volume_id in volume_ids if volume_id not in instance.volume_ids]
    if detached:
        raise Refused(
            f"These volumes of the instance snapshot are no longer attached to instance {instance.id}: "
            f"{', '.join(detached)}. Attach them again first."
        )
