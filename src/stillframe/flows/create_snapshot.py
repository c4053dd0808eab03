"""Taking an instance snapshot: cut all volumes at one instant, wait until the copies can be relied on, say so."""

from __future__ import annotations

import logging
from typing import Never

from stillframe.domain import omission
from stillframe.domain.arguments import CreateArguments
from stillframe.domain.errors import Refused
from stillframe.domain.operation import OperationState, Settlement
from stillframe.domain.outcomes import CutMade
from stillframe.domain.snapshot import Consistency, ConsistencyLevel, CopyKind, CopyReference, achieved, too_little
from stillframe.domain.verdict import Creation, Failure, verdict
from stillframe.drivers.call import Call
from stillframe.engine.task import Outcomes
from stillframe.engine.work import Attempt, Work
from stillframe.flows.step import Ports, SettlingOperation, Step

LOG = logging.getLogger(__name__)


def plan(ports: Ports, attempt: Attempt, asked: CreateArguments) -> Work:
    """The work of `Action.SNAPSHOT`."""
    creating = CreatingSnapshot(ports, attempt, asked)
    completing = CompletingCopies(ports, attempt, creating)

    def judge(told: Outcomes, failure: Failure | None) -> Settlement:
        return verdict(Creation(told.of(creating), ports.now(), failure))

    done = SettlingOperation(ports, attempt, [creating], judge)
    # Some back ends copy at the cut, others after it.
    either = (creating.name, completing.name)
    return Work(
        "InstSnapshotFlow", [creating, completing, done], judge, weights=dict.fromkeys(either, 90.0), either=either
    )


class CreatingSnapshot(Step[CutMade]):
    """Freeze, cut and thaw in one step: recorded apart, a crash after the freeze would resume into an unfrozen cut."""

    outcome = CutMade

    def __init__(self, ports: Ports, attempt: Attempt, asked: CreateArguments) -> None:
        super().__init__(ports, attempt, "creating_snapshot")
        self.asked = asked

    def do(self) -> CutMade:
        call = self.call()
        return self.ports.retries.retrying("the cut", call)(self._cut, call)

    def _cut(self, call: Call) -> CutMade:
        ports, volume_ids, minimum = self.ports, self.asked.volume_ids, self.asked.minimum
        self._let_run(call)
        self._drop(call)
        instance = ports.compute.get_instance(self.instance_id)
        detached = [volume_id for volume_id in volume_ids if volume_id not in instance.volume_ids]
        if detached:
            raise Refused(f"These volumes were detached before they could be cut: {', '.join(detached)}.")
        ports.storage.check_cut(instance, volume_ids)
        names = [self.copy_name(CopyKind.SNAPSHOT, volume_id) for volume_id in volume_ids]
        prepared = ports.storage.prepare_cut(call, instance, names)
        with ports.compute.quiesced(call, self.instance_id) as stillness:
            # One instant is all that a back end may add by itself.
            if not achieved(stillness.level, at_one_instant=True).reaches(minimum):
                raise _too_little(stillness.level, stillness.reason, minimum)
            cut = ports.storage.cut(call, instance, names, prepared)
        level = achieved(stillness.level, at_one_instant=cut.simultaneous or len(volume_ids) == 1)
        if not level.reaches(minimum):
            raise _too_little(level, stillness.reason, minimum)
        omissions = omission.at_the_cut(instance, volume_ids)
        return CutMade(
            copies={copy.name.volume_id: copy.id for copy in cut.snapshots},
            unready=tuple(copy.id for copy in cut.snapshots if not copy.ready),
            consistency=Consistency(level, round(cut.window_ms, 3), stillness.reason, omissions),
        )

    def undo(self) -> None:
        if self.ports.records.operation(self.operation.id).state is OperationState.SUCCEEDED:
            # Settled after all: the copies are somebody's now.
            return
        for undo in (self._let_run, self._drop):
            try:
                undo(self.undo_call())
            except Exception as error:  # noqa: BLE001  # it is told, and keeps nothing else from being undone
                # What is left carries the snapshot's id and goes with its deletion, or stays marked as held still.
                self.log_undone(error, "what was half-made could not all be undone")

    def _let_run(self, call: Call) -> None:
        """Let the guest run that an earlier attempt may have left held still."""
        self.require(call)
        self.ports.compute.release(self.instance_id)

    def _drop(self, call: Call) -> None:
        """Remove the copies that an earlier attempt left: they are of another instant."""
        self.delete_copies(call, CopyKind.SNAPSHOT, self.operation.id)


class CompletingCopies(Step[Never]):
    """Wait until every copy is durable and can be restored from."""

    def __init__(self, ports: Ports, attempt: Attempt, creating: CreatingSnapshot) -> None:
        super().__init__(ports, attempt, "updating_snapshots", [creating])
        self._creating = creating

    def do(self) -> None:
        cut = self.told.of(self._creating)
        self.complete_all(() if cut is None else _unready(cut))


def _unready(cut: CutMade) -> list[CopyReference]:
    return [CopyReference(copy_id, volume_id) for volume_id, copy_id in cut.copies.items() if copy_id in cut.unready]


def _too_little(level: ConsistencyLevel, reason: str | None, minimum: ConsistencyLevel) -> Refused:
    return Refused(f"{too_little(level, reason, minimum)} Nothing of the snapshot is kept; mend that, or ask for less.")
