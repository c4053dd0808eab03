"""Deleting an instance snapshot with everything that carries its id in the back end."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from taskflow.patterns import linear_flow

from stillframe.domain.errors import NotFound
from stillframe.domain.operation import Settlement
from stillframe.domain.snapshot import Fault
from stillframe.domain.status import Event
from stillframe.drivers.call import Call
from stillframe.engine.work import Attempt, Failure, Work
from stillframe.flows.step import Ports, Step


def plan(ports: Ports, attempt: Attempt) -> Work:
    """The work of `Action.DELETE`."""
    flow = linear_flow.Flow("InstSnapshotDeleteFlow").add(
        DeletingSnapshots(ports, attempt, "deleting_snapshots", provides="failed"),
        UpdatingSnapshots(ports, attempt, "updating_snapshots", provides="unfenced"),
        SnapshotDone(ports, attempt, "SnapshotDone"),
    )
    return Work(flow, _settle_failure, weights={"deleting_snapshots": 8})


class DeletingSnapshots(Step):
    """Delete every copy that the row names or the back end knows; what fails is data, and the rest goes on."""

    def execute(self) -> dict[str, Any]:
        snapshot, call = self.snapshot(), self.call()
        fence = self.ports.operations.fence(self.instance_id)
        if fence is not None and fence.snapshot_id == snapshot.id:
            used = {*(snapshot.snapshots or {}), *(snapshot.temp_snapshots or {})}
            self._release_volumes(call, used - snapshot.untouched)
        named = {*(snapshot.snapshots or {}).values(), *(snapshot.temp_snapshots or {}).values()}
        found = {copy.id for copy in self.copies()}
        errors = self.delete_all(call, sorted(named | found))
        return {copy_id: {"code": error.code, "message": error.message} for copy_id, error in errors.items()}

    def achieved(self, result: Any) -> bool:
        """See `Task`."""
        return not result

    def _release_volumes(self, call: Call, volume_ids: set[str]) -> None:
        """The fence goes with the snapshot: nothing may write to the volumes any more by then."""

        def release(volume_id: str) -> None:
            with suppress(NotFound):
                self.ports.storage.release(call, volume_id)

        self.at_a_time(release, sorted(volume_ids))


class UpdatingSnapshots(Step):
    """Take the fence away that a failed restore left: its owner goes. The instance stays off."""

    def execute(self, failed: dict[str, Any]) -> bool:
        if not failed:
            self.require(self.call())
            self.ports.compute.unfence(self.instance_id, self.operation.snapshot_id)
        return not failed

    def achieved(self, result: Any) -> bool:
        """See `Task`; the release before recorded None."""
        return result is not False


class SnapshotDone(Step):
    """Settle: gone, or error-deleting with the maps cut down to what is still there."""

    def execute(self, failed: dict[str, Any], unfenced: object) -> None:  # noqa: ARG002  # orders the tasks
        if not failed:
            settlement = Settlement(Event.DELETED, succeeded=True, unfence=True)
        else:
            snapshot = self.snapshot()
            reasons = "; ".join(f"{copy_id}: {what['message']}" for copy_id, what in sorted(failed.items()))
            code = next(iter(failed.values()))["code"]
            fault = Fault(code, f"Volume snapshots that were not deleted: {reasons}", self.ports.now())
            maps = {
                "snapshots": _left(snapshot.snapshots, failed),
                "temp_snapshots": _left(snapshot.temp_snapshots, failed),
            }
            settlement = Settlement(Event.DELETE_FAILED, succeeded=False, fault=fault, maps=maps)
        self.settle(settlement)


def _left(copies: Any, failed: dict[str, Any]) -> dict[str, str] | None:
    return {volume: copy_id for volume, copy_id in (copies or {}).items() if copy_id in failed} or None


def _settle_failure(failure: Failure) -> Settlement:
    return Settlement(Event.DELETE_FAILED, succeeded=False, fault=failure.fault)
