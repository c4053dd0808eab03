"""Rolling back a restore that failed: every volume goes back to its safety copy."""

from __future__ import annotations

from functools import partial
from typing import Any

from taskflow.patterns import linear_flow

from stillframe.domain.arguments import RestoreArguments
from stillframe.domain.operation import Settlement
from stillframe.domain.snapshot import Fault
from stillframe.domain.status import Event
from stillframe.engine.work import Attempt, Failure, Work
from stillframe.flows.restore_steps import (
    ConfirmingFence,
    FencingInstance,
    RecordingIntent,
    ReleasingInstance,
    UpdatingSnapshots,
    describe_outcomes,
    fence_lost,
    restoring_volumes,
    settle_if_whole,
    settle_whole,
    still_fenced,
)
from stillframe.flows.step import Ports, Step


def plan(ports: Ports, attempt: Attempt, asked: RestoreArguments) -> Work:
    """The work of `Action.ROLLBACK`: its copies are the safety copies."""
    args = (ports, attempt)
    rolling_back, names = restoring_volumes(*args, "rolling_back_volume", asked)
    outcomes = list(names.values())
    flow = linear_flow.Flow("InstRollbackFlow").add(
        FencingInstance(*args, "fencing_instance", asked=asked),
        RecordingIntent(*args, "recording_intent", inject={"safety_copies": None}),
        rolling_back,
        ConfirmingFence(*args, "confirming_fence", requires=outcomes, provides="held"),
        ReleasingInstance(*args, "releasing_instance", provides="released"),
        UpdatingSnapshots(*args, "updating_snapshots", provides="updated"),
        RollbackDone(*args, "SnapshotDone", requires=outcomes),
    )
    weights = dict.fromkeys(outcomes, 80 / max(1, len(outcomes)))
    return Work(flow, partial(_settle_failure, outcomes), weights, parallel=len(asked.copies) > 1)


class RollbackDone(Step):
    """Settle by the outcomes: available, or rollback-error with both maps as they were."""

    def execute(
        self,
        held: dict[str, Any] | None,
        released: dict[str, Any] | None,
        updated: dict[str, Any] | None,
        **outcomes: dict[str, Any],
    ) -> None:
        failed = [outcome for outcome in outcomes.values() if not outcome["ok"]]
        if failed:
            fault = Fault(*describe_outcomes(failed, "rolled back"), self.ports.now())
            settlement = Settlement(Event.ROLLBACK_FAILED, succeeded=False, fault=fault)
        elif held is not None and fence_lost(held):
            fault = Fault(held["code"], held["message"], self.ports.now())
            settlement = Settlement(Event.ROLLBACK_FAILED, succeeded=False, fault=fault)
        elif released is not None and still_fenced(released):
            fault = Fault(released["code"], released["message"], self.ports.now())
            settlement = Settlement(Event.ROLLBACK_FAILED, succeeded=False, fault=fault)
        else:
            settlement = settle_whole(Event.ROLLED_BACK, released, updated, self.ports.now())
        self.settle(settlement)


def _settle_failure(names: list[str], failure: Failure) -> Settlement:
    whole = settle_if_whole(Event.ROLLED_BACK, names, failure)
    return whole or Settlement(Event.ROLLBACK_FAILED, succeeded=False, fault=failure.fault)
