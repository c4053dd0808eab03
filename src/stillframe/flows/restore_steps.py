"""The tasks that restore, retry and rollback have in common."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Never

from stillframe.domain.arguments import Action, RestoreArguments
from stillframe.domain.errors import Conflict, Refused, StillframeError, Superseded
from stillframe.domain.instance import Instance, PowerState
from stillframe.domain.operation import Operation, Settlement
from stillframe.domain.outcomes import (
    FenceConfirmed,
    InstanceReleased,
    Reason,
    SafetyCopiesDeleted,
    SafetyCopiesMade,
    VolumeRestored,
)
from stillframe.domain.snapshot import CopyKind
from stillframe.domain.verdict import Failure, GivenBack, Restoration, verdict
from stillframe.drivers.call import Call
from stillframe.drivers.storage import Cut
from stillframe.engine.faults import storable
from stillframe.engine.task import Outcomes
from stillframe.engine.work import Attempt, Judge
from stillframe.flows.step import Ports, Step

LOG = logging.getLogger(__name__)


class FencingInstance(Step[Never]):
    """Let nobody start the instance, see that every volume can be put back, and shut it down where that is allowed."""

    def __init__(self, ports: Ports, attempt: Attempt, asked: RestoreArguments) -> None:
        super().__init__(ports, attempt, "fencing_instance")
        self.asked = asked

    def do(self) -> None:
        ports, call = self.ports, self.call()
        self.require(call)
        ports.compute.release(self.instance_id)
        if self.asked.action is not Action.RESTORE and not self._was_held():
            # A guest may have written to volumes that no restore had touched.
            ports.records.forget_untouched(self.operation)
        if self.asked.force and ports.compute.hold(self.instance_id)[0] is not PowerState.SHUTOFF:
            # Nothing has been touched yet, and what a platform is asked for it may do much later.
            ports.compute.check_power(self.instance_id, PowerState.SHUTOFF)
        # Fenced first: what is seen then does not change any more.
        self.require(call)
        ports.compute.fence(self.instance_id, self.operation.snapshot_id)
        instance = ports.compute.get_instance(self.instance_id)
        runs = instance.power_state is not PowerState.SHUTOFF
        if runs and not self.asked.force:
            raise Refused(f"Instance {instance.id} was started before the restore began; shut it off or set 'force'.")
        # Before it is shut down: afterwards nobody could tell any more.
        ports.records.note_power(self.operation, was_active=runs)
        # What the request saw may have changed since; only what runs shows what it has open, and only before it ends.
        self._require_restorable(instance)
        ports.compute.stop(call, self.instance_id, ports.graceful_stop_seconds)
        if runs:
            self._require_restorable(ports.compute.get_instance(self.instance_id))

    def _was_held(self) -> bool:
        """Whether the instance has been off and fenced since the restore that failed, as far as can be seen."""
        try:
            require_held(self)
        except Conflict:
            return False
        return True

    def _require_restorable(self, instance: Instance) -> None:
        copies = self.asked.copies
        if self.asked.action is Action.ROLLBACK:
            untouched = self.snapshot().untouched
            copies = {volume_id: copy_id for volume_id, copy_id in copies.items() if volume_id not in untouched}
        for volume_id in copies:
            if volume_id not in instance.volume_ids:
                raise Refused(f"Volume {volume_id} is no longer attached to instance {instance.id}.")
        self.ports.storage.check_restore(instance, copies)

    def undo(self) -> None:
        """Give the instance back as it was, unless an earlier restore has left its volumes in pieces."""
        if self.asked.action is not Action.RESTORE or not _undoable(self):
            return
        try:
            unfence_instance(self, self.undo_call())
            start_again(self, self.undo_call())
        except StillframeError as error:
            self.log_undone(error, "the instance could not be given back as it was")


class CreatingSafetyCopies(Step[SafetyCopiesMade]):
    """Copy every volume as it is now, so that the present can be rolled back to."""

    outcome = SafetyCopiesMade

    def __init__(self, ports: Ports, attempt: Attempt, asked: RestoreArguments) -> None:
        super().__init__(ports, attempt, "creating_safety_copies")
        self.asked = asked

    def do(self) -> SafetyCopiesMade:
        call = self.call()
        self.at_a_time(partial(self.ports.storage.release, call), self.asked.copies)
        require_held(self)
        cut = self.ports.retries.retrying("the cut", call)(self._cut, call)
        self.complete_all([copy.reference for copy in cut.snapshots if not copy.ready])
        return SafetyCopiesMade({copy.name.volume_id: copy.id for copy in cut.snapshots})

    def _cut(self, call: Call) -> Cut:
        # Leftovers of earlier restores, and of an earlier attempt at this one: none of them is the present.
        self.delete_copies(call, CopyKind.SAFETY)
        instance = self.ports.compute.get_instance(self.instance_id)
        names = [self.copy_name(CopyKind.SAFETY, volume_id) for volume_id in self.asked.copies]
        prepared = self.ports.storage.prepare_cut(call, instance, names)
        return self.ports.storage.cut(call, instance, names, prepared)

    def undo(self) -> None:
        if not _undoable(self):
            return
        try:
            self.delete_copies(self.undo_call(), CopyKind.SAFETY, self.operation.id)
        except StillframeError as error:
            # What is left carries the snapshot's id and goes with its next restore or its deletion.
            self.log_undone(error, "the safety copies could not all be removed")


class RecordingIntent(Step[Never]):
    """The point of no return: from here on the volumes may differ, and nothing is undone by itself any more.

    Without `safety`, the safety copies of an earlier restore still hold.
    """

    def __init__(self, ports: Ports, attempt: Attempt, safety: CreatingSafetyCopies | None) -> None:
        super().__init__(ports, attempt, "recording_intent", () if safety is None else [safety])
        self._safety = safety

    def do(self) -> None:
        made = None if self._safety is None else self.told.of(self._safety)
        self.ports.records.commit(self.operation, None if made is None else made.copies)


class RestoringVolume(Step[VolumeRestored]):
    """Put one volume back; how that went is data, so that it says nothing about the other volumes."""

    outcome = VolumeRestored

    def __init__(self, ports: Ports, attempt: Attempt, asked: RestoreArguments, prefix: str, volume_id: str) -> None:
        super().__init__(ports, attempt, f"{prefix}_{volume_id}")
        self.asked = asked
        self.volume_id = volume_id

    def do(self) -> VolumeRestored:
        touched, held = threading.Event(), False
        # What an earlier claim on the operation did, it has not said.
        if self.operation.generation > 1:
            touched.set()
        try:
            require_held(self)
            held = True
            if not self._is_there_already():
                call = replace(self.call(), touch=touched.set)
                instance = self.ports.compute.get_instance(self.instance_id)
                self.ports.storage.restore(call, instance, self.volume_id, self.asked.copies[self.volume_id])
        except Exception as error:  # noqa: BLE001  # it is told, and says nothing about the other volumes
            told = storable(error, f"task {self.operation.id}: restoring volume {self.volume_id}")
            return VolumeRestored(self.volume_id, Reason(told.code, told.message), held=held, touched=touched.is_set())
        return VolumeRestored(self.volume_id)

    def _is_there_already(self) -> bool:
        """Whether the volume is what it is to be put back to: no restore has touched it since its safety copy."""
        return self.asked.action is Action.ROLLBACK and self.volume_id in self.snapshot().untouched


class ConfirmingFence(Step[FenceConfirmed]):
    """See that the instance was still off and fenced when the last volume was whole.

    A step of its own: once its outcome is recorded, the fence may be gone by our own hand. It comes to none while
    volumes are missing.
    """

    outcome = FenceConfirmed

    def __init__(self, ports: Ports, attempt: Attempt, volumes: Sequence[RestoringVolume]) -> None:
        super().__init__(ports, attempt, "confirming_fence", volumes)
        self._volumes = volumes

    def do(self) -> FenceConfirmed | None:
        for volume in self._volumes:
            outcome = self.told.of(volume)
            if outcome is None or not outcome.achieved:
                return None
        try:
            require_held(self)
        except Conflict as error:
            LOG.warning("task %s: %s", self.operation.id, error)
            message = (
                f"{error.message} All of them were put back, but a guest may have written to them since, and what they "
                "hold is not certain."
            )
            return FenceConfirmed(Reason(error.code, message))
        return FenceConfirmed()


class ReleasingInstance(Step[InstanceReleased]):
    """Take the fence away once all volumes are whole, and start the instance again if it ran before.

    It comes to no outcome while volumes are missing or where somebody else had freed the instance.
    """

    outcome = InstanceReleased

    def __init__(self, ports: Ports, attempt: Attempt, confirming: ConfirmingFence) -> None:
        super().__init__(ports, attempt, "releasing_instance", [confirming])
        self._confirming = confirming

    def do(self) -> InstanceReleased | None:
        confirmed = self.told.of(self._confirming)
        if confirmed is None or not confirmed.achieved:
            return None
        call = self.call()
        # Once the guest runs, no loss of power may make us forget that its volumes need no restore any more.
        self.ports.records.make_durable(self.operation)
        for fenced, release in ((True, unfence_instance), (False, start_again)):
            try:
                # Neither of them may come after somebody else has settled the operation.
                self.require(call)
                release(self, call)
            except Superseded:
                raise
            except StillframeError as error:
                self.log_failure(error, "the instance was not given back as it was")
                missing = "free" if fenced else "up"
                message = f"The volumes are whole, but the instance is not {missing}: {error.message}"
                return InstanceReleased(fenced, Reason(error.code, message))
        return InstanceReleased()


class DeletingSafetyCopies(Step[SafetyCopiesDeleted]):
    """Delete the safety copies once nobody needs them any more; it comes to no outcome while somebody may."""

    outcome = SafetyCopiesDeleted

    def __init__(self, ports: Ports, attempt: Attempt, releasing: ReleasingInstance) -> None:
        super().__init__(ports, attempt, "updating_snapshots", [releasing])
        self._releasing = releasing

    def do(self) -> SafetyCopiesDeleted | None:
        released = self.told.of(self._releasing)
        if released is None or released.fenced:
            return None
        try:
            self.delete_copies(self.call(), CopyKind.SAFETY)
        except Superseded:
            raise
        except StillframeError as error:
            self.log_failure(error, "safety copies are left over")
            message = (
                "The volumes are whole, but safety copies are left over; the next restore to this instance snapshot "
                f"or its deletion removes them: {error.message}"
            )
            return SafetyCopiesDeleted(self._leftovers(), Reason(error.code, message))
        return SafetyCopiesDeleted({})

    def _leftovers(self) -> dict[str, str]:
        try:
            found = self.copies()
        except StillframeError:
            LOG.exception("task %s: nobody knows which safety copies are left over", self.operation.id)
            return dict(self.snapshot().temp_snapshots or {})
        return {copy.name.volume_id: copy.id for copy in found if copy.name.kind is CopyKind.SAFETY}


def require_held(step: Step[Any]) -> None:
    """Raises `Conflict` if the instance is not off and fenced for us any more.

    An administrator of the platform may have freed it while nobody worked on the operation.
    """
    state, holder = step.ports.compute.hold(step.instance_id)
    if holder != step.operation.snapshot_id:
        raise Conflict(
            f"Instance {step.instance_id} was freed by somebody else while its volumes were put back; "
            "retry the restore."
        )
    if state is not PowerState.SHUTOFF:
        raise Conflict(
            f"Instance {step.instance_id} was started by somebody else while its volumes were put back; "
            "stop it, and retry the restore."
        )


def unfence_instance(step: Step[Any], call: Call) -> None:
    """Take the snapshot's fence away in the platform; the store's goes with the settlement."""
    step.require(call)
    step.ports.compute.unfence(step.instance_id, step.operation.snapshot_id)


def start_again(step: Step[Any], call: Call) -> None:
    """Start the instance if it ran before the first restore of the row."""
    fence = step.ports.records.fence(step.instance_id)
    if fence is not None and fence.snapshot_id == step.operation.snapshot_id and fence.was_active:
        step.ports.compute.start(call, step.instance_id)


def judge_by(
    ports: Ports,
    attempt: Attempt,
    asked: RestoreArguments,
    volumes: Sequence[RestoringVolume],
    confirming: ConfirmingFence,
    releasing: ReleasingInstance,
    deleting: DeletingSafetyCopies,
) -> Judge:
    """How to settle a restore, retry or rollback by what its tasks have told."""

    def judge(told: Outcomes, failure: Failure | None) -> Settlement:
        operation = ports.records.operation(attempt.operation.id)
        ending = Restoration(
            asked=asked,
            volumes={volume.volume_id: told.of(volume) for volume in volumes},
            fence=told.of(confirming),
            release=told.of(releasing),
            deleted=told.of(deleting),
            row=ports.records.snapshot(operation.snapshot_id),
            committed=operation.committed,
            now=ports.now() if failure is None else failure.fault.created_at,
            failure=failure,
        )
        return verdict(replace(ending, given_back=_given_back(ports, operation)) if ending.undone else ending)

    return judge


def _given_back(ports: Ports, operation: Operation) -> GivenBack:
    """How the instance of a restore that was undone is found; in doubt it is not as it was, and a retry mends that."""
    try:
        free = ports.compute.fenced_by(operation.instance_id) != operation.snapshot_id
    except StillframeError:
        LOG.exception("task %s: nobody knows whether the instance is free", operation.id)
        return GivenBack(free=False, up=False)
    return GivenBack(free, up=not free or _is_up_again(ports, operation))


def _is_up_again(ports: Ports, operation: Operation) -> bool:
    fence = ports.records.fence(operation.instance_id)
    if fence is None or not fence.was_active:
        return True
    try:
        return ports.compute.get_instance(operation.instance_id).power_state is not PowerState.SHUTOFF
    except StillframeError:
        LOG.exception("task %s: nobody knows whether the instance is up again", operation.id)
        return False


def _undoable(step: Step[Any]) -> bool:
    """Whether the operation is still open and has not passed its point of no return."""
    operation = step.ports.records.operation(step.operation.id)
    return not operation.state.final and not operation.committed
