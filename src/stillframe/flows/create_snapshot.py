"""Taking an instance snapshot: cut all volumes at one instant, wait until the copies can be relied on, say so."""

from __future__ import annotations

import logging
from typing import Any

from taskflow.patterns import linear_flow

from stillframe.domain import omission
from stillframe.domain.arguments import CreateArguments
from stillframe.domain.errors import Refused
from stillframe.domain.operation import OperationState, Settlement
from stillframe.domain.snapshot import Consistency, ConsistencyLevel, CopyKind, achieved, too_little
from stillframe.domain.status import Event
from stillframe.drivers.call import Call
from stillframe.engine.work import Attempt, Failure, Work
from stillframe.flows.step import Ports, Step

LOG = logging.getLogger(__name__)


def plan(ports: Ports, attempt: Attempt, asked: CreateArguments) -> Work:
    """The work of `Action.SNAPSHOT`."""
    flow = linear_flow.Flow("InstSnapshotFlow").add(
        CreatingSnapshot(ports, attempt, "creating_snapshot", asked=asked, provides="cut"),
        UpdatingSnapshots(ports, attempt, "updating_snapshots", provides="completed"),
        SnapshotDone(ports, attempt, "SnapshotDone"),
    )
    # Some back ends copy at the cut, others after it.
    either = ("creating_snapshot", "updating_snapshots")
    return Work(flow, _settle_failure, weights=dict.fromkeys(either, 90.0), either=either)


class CreatingSnapshot(Step):
    """Freeze, cut and thaw in one step: recorded apart, a crash after the freeze would resume into an unfrozen cut."""

    def __init__(self, *args: Any, asked: CreateArguments, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asked = asked

    def execute(self) -> dict[str, Any]:
        call = self.call()
        return self.ports.retries.retrying("the cut", call)(self._cut, call)

    def _cut(self, call: Call) -> dict[str, Any]:
        ports = self.ports
        volume_ids, minimum = self.asked.volume_ids, self.asked.minimum
        self._let_run(call)
        self._drop(call)
        instance = ports.compute.get_instance(self.instance_id)
        detached = [volume_id for volume_id in volume_ids if volume_id not in instance.volume_ids]
        if detached:
            raise Refused(f"These volumes were detached before they could be cut: {', '.join(detached)}.")
        ports.storage.check_cut(instance, volume_ids)
        names = [self.copy_name(CopyKind.SNAPSHOT, volume_id) for volume_id in volume_ids]
        ports.storage.prepare_cut(call, instance, names)
        with ports.compute.quiesced(call, self.instance_id) as stillness:
            # One instant is all that a back end may add by itself.
            if not achieved(stillness.level, at_one_instant=True).reaches(minimum):
                raise _too_little(stillness.level, stillness.reason, minimum)
            cut = ports.storage.cut(call, instance, names)
        level = achieved(stillness.level, at_one_instant=cut.simultaneous or len(volume_ids) == 1)
        if not level.reaches(minimum):
            raise _too_little(level, stillness.reason, minimum)
        return {
            "copies": {copy.name.volume_id: copy.id for copy in cut.snapshots},
            "unready": [copy.id for copy in cut.snapshots if not copy.ready],
            "level": level.value,
            "reason": stillness.reason,
            "window_ms": round(cut.window_ms, 3),
            "omissions": omission.as_data(omission.at_the_cut(instance, volume_ids)),
        }

    def revert(self, **_kwargs: Any) -> None:
        if self.ports.operations.get(self.operation.id).state is OperationState.SUCCEEDED:
            # Settled after all: the copies are somebody's now.
            return
        for undo in (self._let_run, self._drop):
            try:
                undo(self.undo_call())
            except Exception:
                # What is left carries the snapshot's id and goes with its deletion, or stays marked as held still.
                LOG.exception("task %s: what was half-made could not all be undone", self.operation.id)

    def _let_run(self, call: Call) -> None:
        """Let the guest run that an earlier attempt may have left held still."""
        self.require(call)
        self.ports.compute.release(self.instance_id)

    def _drop(self, call: Call) -> None:
        """Remove the copies that an earlier attempt left: they are of another instant."""
        self.delete_copies(call, CopyKind.SNAPSHOT, self.operation.id)


class UpdatingSnapshots(Step):
    """Wait until every copy is durable and can be restored from."""

    def execute(self, cut: dict[str, Any]) -> None:
        # The first release records no more than which copies there are; to complete one again does no harm.
        self.complete_all(cut.get("unready", list(cut["copies"].values())))


class SnapshotDone(Step):
    """Show the snapshot as available."""

    def execute(self, cut: dict[str, Any], completed: None) -> None:  # noqa: ARG002  # orders the tasks
        settlement = Settlement(
            Event.CREATED,
            succeeded=True,
            maps={"snapshots": cut["copies"]},
            consistency=Consistency(
                ConsistencyLevel(cut["level"]),
                cut["window_ms"],
                cut.get("reason"),
                omission.from_data(cut.get("omissions")),
            ),
        )
        self.settle(settlement)


def _too_little(level: ConsistencyLevel, reason: str | None, minimum: ConsistencyLevel) -> Refused:
    return Refused(f"{too_little(level, reason, minimum)} Nothing of the snapshot is kept.")


def _settle_failure(failure: Failure) -> Settlement:
    return Settlement(Event.CREATE_FAILED, succeeded=False, fault=failure.fault, maps={"snapshots": None})
