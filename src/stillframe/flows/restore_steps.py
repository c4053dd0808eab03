"""The tasks that restore, retry and rollback have in common."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from taskflow.patterns import unordered_flow

from stillframe.domain.arguments import Action, RestoreArguments
from stillframe.domain.errors import Conflict, Refused, StillframeError
from stillframe.domain.instance import Instance, PowerState
from stillframe.domain.operation import Settlement
from stillframe.domain.snapshot import CopyKind, Fault, InstanceSnapshot
from stillframe.domain.status import Event
from stillframe.drivers.call import Call
from stillframe.drivers.storage import Cut
from stillframe.engine.faults import storable
from stillframe.engine.work import Attempt, Failure
from stillframe.flows.step import Ports, Step

LOG = logging.getLogger(__name__)


class RestoreStep(Step):
    """A task that depends on what was asked for."""

    def __init__(self, *args: Any, asked: RestoreArguments, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asked = asked


class FencingInstance(RestoreStep):
    """Let nobody start the instance, see that every volume can be put back, and shut it down where that is allowed."""

    def execute(self) -> None:
        ports, call = self.ports, self.call()
        self.require(call)
        ports.compute.release(self.instance_id)
        if self.asked.action is not Action.RESTORE and not self._was_held():
            # A guest may have written to volumes that no restore had touched.
            ports.operations.forget_untouched(self.operation)
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
        ports.operations.note_power(self.operation, was_active=runs)
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

    def revert(self, **_kwargs: Any) -> None:
        """Give the instance back as it was, unless an earlier restore has left its volumes in pieces."""
        if self.asked.action is not Action.RESTORE or not _undoable(self):
            return
        try:
            unfence_instance(self, self.undo_call())
            start_again(self, self.undo_call())
        except StillframeError:
            LOG.exception("task %s: the instance could not be given back as it was", self.operation.id)


class CreatingSafetyCopies(RestoreStep):
    """Copy every volume as it is now, so that the present can be rolled back to."""

    def execute(self) -> dict[str, str]:
        call = self.call()
        self.at_a_time(partial(self.ports.storage.release, call), self.asked.copies)
        require_held(self)
        cut = self.ports.retries.retrying("the cut", call)(self._cut, call)
        self.complete_all([copy.id for copy in cut.snapshots if not copy.ready])
        return {copy.name.volume_id: copy.id for copy in cut.snapshots}

    def _cut(self, call: Call) -> Cut:
        # Leftovers of earlier restores, and of an earlier attempt at this one: none of them is the present.
        self.delete_copies(call, CopyKind.SAFETY)
        instance = self.ports.compute.get_instance(self.instance_id)
        names = [self.copy_name(CopyKind.SAFETY, volume_id) for volume_id in self.asked.copies]
        self.ports.storage.prepare_cut(call, instance, names)
        return self.ports.storage.cut(call, instance, names)

    def revert(self, **_kwargs: Any) -> None:
        if not _undoable(self):
            return
        try:
            self.delete_copies(self.undo_call(), CopyKind.SAFETY, self.operation.id)
        except StillframeError:
            # What is left carries the snapshot's id and goes with its next restore or its deletion.
            LOG.exception("task %s: the safety copies could not all be removed", self.operation.id)


class RecordingIntent(Step):
    """The point of no return: from here on the volumes may differ, and nothing is undone by itself any more."""

    def execute(self, safety_copies: dict[str, str] | None) -> None:
        self.ports.operations.commit(self.operation, safety_copies)


class RestoringVolume(RestoreStep):
    """Put one volume back; how that went is data, so that it says nothing about the other volumes."""

    def __init__(self, *args: Any, volume_id: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.volume_id = volume_id

    def execute(self) -> dict[str, Any]:
        touched, held = threading.Event(), False
        # What an earlier claim on the operation did, it has not said.
        if self.operation.generation > 1:
            touched.set()
        try:
            require_held(self)
            held = True
            if not self._is_there_already():
                call = replace(self.call(), touch=touched.set)
                self.ports.storage.restore(call, self.volume_id, self.asked.copies[self.volume_id])
        except Exception as error:  # noqa: BLE001  # it is told, and says nothing about the other volumes
            told = storable(error, f"task {self.operation.id}: restoring volume {self.volume_id}")
            return {
                "ok": False,
                "volume_id": self.volume_id,
                "code": told.code,
                "message": told.message,
                "held": held,
                "touched": touched.is_set(),
            }
        return {"ok": True, "volume_id": self.volume_id}

    def _is_there_already(self) -> bool:
        """Whether the volume is what it is to be put back to: no restore has touched it since its safety copy."""
        return self.asked.action is Action.ROLLBACK and self.volume_id in self.snapshot().untouched


def restoring_volumes(
    ports: Ports, attempt: Attempt, prefix: str, asked: RestoreArguments
) -> tuple[unordered_flow.Flow, dict[str, str]]:
    """A flow with a `RestoringVolume` for each of the copies, and the names of its tasks by volume id."""
    names = {volume_id: f"{prefix}_{volume_id}" for volume_id in asked.copies}
    tasks = [
        RestoringVolume(ports, attempt, name, asked=asked, volume_id=volume_id, provides=name)
        for volume_id, name in names.items()
    ]
    return unordered_flow.Flow(f"{prefix}s").add(*tasks), names


class ConfirmingFence(Step):
    """See that the instance was still off and fenced when the last volume was whole.

    A step of its own: once its result is recorded, the fence may be gone by our own hand. The result is data: None
    while volumes are missing, else `held`, and where that is False `code` and `message`.
    """

    def execute(self, **outcomes: dict[str, Any]) -> dict[str, Any] | None:
        if not all(outcome["ok"] for outcome in outcomes.values()):
            return None
        try:
            require_held(self)
        except Conflict as error:
            LOG.warning("task %s: %s", self.operation.id, error)
            message = (
                f"{error.message} All of them were put back, but a guest may have written to them since, and what they "
                "hold is not certain."
            )
            return {"held": False, "code": error.code, "message": message}
        return {"held": True}

    def achieved(self, result: Any) -> bool:
        """See `Task`."""
        return result is not None and bool(result["held"])


class ReleasingInstance(Step):
    """Take the fence away once all volumes are whole, and start the instance again if it ran before.

    The result is data: None while volumes are missing or where somebody else had freed the instance, else `fenced` says
    whether nobody can start the instance yet, and `code` and `message` what went wrong.
    """

    def execute(self, held: dict[str, Any] | None) -> dict[str, Any] | None:
        if held is None or fence_lost(held):
            return None
        call = self.call()
        # Once the guest runs, no loss of power may make us forget that its volumes need no restore any more.
        self.ports.operations.make_durable(self.operation)
        for fenced, release in ((True, unfence_instance), (False, start_again)):
            try:
                # Neither of them may come after somebody else has settled the operation.
                self.require(call)
                release(self, call)
            except StillframeError as error:
                LOG.exception("task %s: the instance was not given back as it was", self.operation.id)
                missing = "free" if fenced else "up"
                message = f"The volumes are whole, but the instance is not {missing}: {error.message}"
                return {"fenced": fenced, "code": error.code, "message": message}
        return {"fenced": False}

    def achieved(self, result: Any) -> bool:
        """See `Task`."""
        return result is not None and "code" not in result


class UpdatingSnapshots(Step):
    """Delete the safety copies once nobody needs them any more; `leftovers` are those that are still there."""

    def execute(self, released: dict[str, Any] | None) -> dict[str, Any] | None:
        if released is None or still_fenced(released):
            return None
        try:
            self.delete_copies(self.call(), CopyKind.SAFETY)
        except StillframeError as error:
            LOG.exception("task %s: safety copies are left over", self.operation.id)
            return {
                "leftovers": self._leftovers(),
                "code": error.code,
                "message": "The volumes are whole, but safety copies are left over; the next restore to this instance "
                f"snapshot or its deletion removes them: {error.message}",
            }
        return {"leftovers": {}}

    def achieved(self, result: Any) -> bool:
        """See `Task`."""
        return result is not None and "code" not in result

    def _leftovers(self) -> dict[str, str]:
        try:
            operation = self.operation
            found = self.ports.storage.find(operation.snapshot_id, self.instance_id, operation.project_id)
        except StillframeError:
            LOG.exception("task %s: nobody knows which safety copies are left over", self.operation.id)
            return dict(self.snapshot().temp_snapshots or {})
        return {copy.name.volume_id: copy.id for copy in found if copy.name.kind is CopyKind.SAFETY}


def require_held(step: Step) -> None:
    """Raises `Conflict` if the instance is not off and fenced for us any more.

    An administrator of the platform may have freed it while nobody worked on the operation.
    """
    state, holder = step.ports.compute.hold(step.instance_id)
    if holder != step.operation.snapshot_id:
        raise Conflict(f"Instance {step.instance_id} was freed by somebody else while its volumes were put back.")
    if state is not PowerState.SHUTOFF:
        raise Conflict(f"Instance {step.instance_id} was started by somebody else while its volumes were put back.")


def unfence_instance(step: Step, call: Call) -> None:
    """Take the snapshot's fence away in the platform; the store's goes with the settlement."""
    step.require(call)
    step.ports.compute.unfence(step.instance_id, step.operation.snapshot_id)


def start_again(step: Step, call: Call) -> None:
    """Start the instance if it ran before the first restore of the row."""
    fence = step.ports.operations.fence(step.instance_id)
    if fence is not None and fence.snapshot_id == step.operation.snapshot_id and fence.was_active:
        step.ports.compute.start(call, step.instance_id)


def fence_lost(held: dict[str, Any] | None) -> bool:
    """Whether the outcome of `ConfirmingFence` says that somebody else had freed the instance."""
    return held is not None and not held["held"]


def still_fenced(released: dict[str, Any] | None) -> bool:
    """Whether the outcome of `ReleasingInstance` says that the platform's fence could not be taken away."""
    return released is not None and bool(released["fenced"])


def settle_whole(
    event: Event, released: dict[str, Any] | None, updated: dict[str, Any] | None, now: datetime
) -> Settlement:
    """All volumes are whole and free; `released` and `updated` are what the steps of these names said, if they did.

    What went wrong after the volumes were whole is told; safety copies that are left over stay shown.
    """
    told = next((said for said in (released, updated) if said and "message" in said), None)
    fault = None if told is None else Fault(told["code"], told["message"], now)
    maps: dict[str, dict[str, str] | None] = {"failed_snapshots": None}
    if updated is not None:
        maps["temp_snapshots"] = updated["leftovers"] or None
    return Settlement(event, succeeded=True, fault=fault, maps=maps, untouched=frozenset(), unfence=True)


def untouched_by(
    asked: RestoreArguments, snapshot: InstanceSnapshot, outcomes: Collection[Any], *, committed: bool
) -> frozenset[str]:
    """The volumes that are what their safety copies are, after a restore or retry that failed.

    `outcomes` are those of the tasks that put volumes back, as far as there are any. Of an instance that was not held
    all the time nothing is known.
    """
    before = frozenset(asked.copies) if asked.safety_copies else snapshot.untouched
    if not committed:
        return before
    failed = [outcome for outcome in outcomes if isinstance(outcome, dict) and outcome.get("ok") is False]
    # An earlier release has recorded neither.
    if not all(outcome.get("held", False) for outcome in failed):
        return frozenset()
    return before & {outcome["volume_id"] for outcome in failed if not outcome.get("touched", True)}


def settle_if_whole(event: Event, names: Collection[str], failure: Failure) -> Settlement | None:
    """The settlement of a flow that failed when its work was done: only the telling of it had not come through.

    `names` are those of the tasks that put volumes back.
    """
    outcomes = [failure.results.get(name) for name in names]
    released, updated = failure.results.get("releasing_instance"), failure.results.get("updating_snapshots")
    if not all(outcome and outcome["ok"] for outcome in outcomes) or released is None or released["fenced"]:
        return None
    settlement = settle_whole(event, released, updated, failure.fault.created_at)
    return replace(settlement, fault=settlement.fault or failure.fault)


def describe_outcomes(failed: Collection[dict[str, Any]], verb: str) -> tuple[str, str]:
    """Code and message for volumes that failed, each with its reason."""
    ordered = sorted(failed, key=lambda outcome: str(outcome["volume_id"]))
    reasons = "; ".join(f"volume {outcome['volume_id']}: {outcome['message']}" for outcome in ordered)
    return ordered[0]["code"], f"{len(ordered)} volume(s) were not {verb}: {reasons}"


def _undoable(step: Step) -> bool:
    """Whether the operation is still open and has not passed its point of no return."""
    operation = step.ports.operations.get(step.operation.id)
    return not operation.state.final and not operation.committed
