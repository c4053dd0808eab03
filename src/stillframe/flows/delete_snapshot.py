"""Deleting an instance snapshot with everything that carries its id in the back end."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from stillframe.domain.errors import NotFound
from stillframe.domain.operation import Settlement
from stillframe.domain.outcomes import CopiesDeleted, FenceDropped, Reason
from stillframe.domain.snapshot import CopyReference
from stillframe.domain.verdict import Deletion, Failure, verdict
from stillframe.drivers.call import Call
from stillframe.engine.task import Outcomes
from stillframe.engine.work import Attempt, Work
from stillframe.flows.step import Ports, SettlingOperation, Step


def plan(ports: Ports, attempt: Attempt) -> Work:
    """The work of `Action.DELETE`."""
    deleting = DeletingSnapshots(ports, attempt, "deleting_snapshots")
    dropping = DroppingFence(ports, attempt, deleting)

    def judge(told: Outcomes, failure: Failure | None) -> Settlement:
        row = ports.records.snapshot(attempt.operation.snapshot_id)
        return verdict(Deletion(told.of(deleting), row, ports.now(), failure))

    done = SettlingOperation(ports, attempt, [deleting], judge)
    return Work("InstSnapshotDeleteFlow", [deleting, dropping, done], judge, weights={deleting.name: 8})


class DeletingSnapshots(Step[CopiesDeleted]):
    """Delete every copy that the row names or the back end knows; what fails is data, and the rest goes on."""

    outcome = CopiesDeleted

    def do(self) -> CopiesDeleted:
        snapshot, call = self.snapshot(), self.call()
        fence = self.ports.records.fence(self.instance_id)
        if fence is not None and fence.snapshot_id == snapshot.id:
            used = {*(snapshot.snapshots or {}), *(snapshot.temp_snapshots or {})}
            self._release_volumes(call, used - snapshot.untouched)
        named = [*(snapshot.snapshots or {}).items(), *(snapshot.temp_snapshots or {}).items()]
        copies = {copy_id: CopyReference(copy_id, volume_id) for volume_id, copy_id in named}
        # What is seen says more of a copy than what is on record.
        copies |= {copy.id: copy.reference for copy in self.copies()}
        errors = self.delete_all(call, [copies[copy_id] for copy_id in sorted(copies)])
        return CopiesDeleted({copy_id: Reason(error.code, error.message) for copy_id, error in errors.items()})

    def _release_volumes(self, call: Call, volume_ids: set[str]) -> None:
        """The fence goes with the snapshot: nothing may write to the volumes any more by then."""

        def release(volume_id: str) -> None:
            with suppress(NotFound):
                self.ports.storage.release(call, volume_id)

        self.at_a_time(release, sorted(volume_ids))


class DroppingFence(Step[FenceDropped]):
    """Take the fence away that a failed restore left: its owner goes. The instance stays off."""

    outcome = FenceDropped

    def __init__(self, ports: Ports, attempt: Attempt, deleting: DeletingSnapshots) -> None:
        super().__init__(ports, attempt, "updating_snapshots", [deleting])
        self._deleting = deleting

    def do(self) -> FenceDropped:
        deleted = self.told.of(self._deleting)
        if deleted is None or not deleted.achieved:
            return FenceDropped(achieved=False)
        self.require(self.call())
        self.ports.compute.unfence(self.instance_id, self.operation.snapshot_id)
        return FenceDropped(achieved=True)

    def succeeded(self, record: Any) -> bool:
        """See `Task`; the first release recorded None."""
        return record is None or super().succeeded(record)
