"""Restoring an instance in place, and retrying the volumes whose restore failed."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any

from taskflow.patterns import linear_flow

from stillframe.domain.arguments import Action, RestoreArguments
from stillframe.domain.errors import StillframeError
from stillframe.domain.instance import PowerState
from stillframe.domain.operation import Operation, Settlement
from stillframe.domain.snapshot import Fault, InstanceSnapshot
from stillframe.domain.status import Event
from stillframe.engine.work import Attempt, Failure, Work
from stillframe.flows.restore_steps import (
    ConfirmingFence,
    CreatingSafetyCopies,
    FencingInstance,
    RecordingIntent,
    ReleasingInstance,
    RestoreStep,
    UpdatingSnapshots,
    describe_outcomes,
    fence_lost,
    restoring_volumes,
    settle_if_whole,
    settle_whole,
    still_fenced,
    untouched_by,
)
from stillframe.flows.step import Ports, Step

LOG = logging.getLogger(__name__)


def plan(ports: Ports, attempt: Attempt, asked: RestoreArguments) -> Work:
    """The work of `Action.RESTORE` and `Action.RETRY`."""
    args = (ports, attempt)
    restoring, names = restoring_volumes(*args, "restoring_volume", asked)
    outcomes = list(names.values())
    flow = linear_flow.Flow("InstRestoreFlow").add(
        FencingInstance(*args, "fencing_instance", asked=asked),
        *_safety_steps(*args, asked),
        restoring,
        ConfirmingFence(*args, "confirming_fence", requires=outcomes, provides="held"),
        ReleasingInstance(*args, "releasing_instance", provides="released"),
        UpdatingSnapshots(*args, "updating_snapshots", provides="updated"),
        RestoreDone(*args, "SnapshotDone", asked=asked, requires=outcomes),
    )
    # A back end that copies for a restore copies as much for the safety copies.
    weights = {"creating_safety_copies": 45.0, **dict.fromkeys(outcomes, 45 / max(1, len(outcomes)))}
    settle_failure = partial(_settle_failure, ports, attempt, asked, names)
    return Work(flow, settle_failure, weights, parallel=len(asked.copies) > 1)


def _safety_steps(ports: Ports, attempt: Attempt, asked: RestoreArguments) -> list[Step]:
    """A retry works on the safety copies of the restore that failed; only one that came to none takes them itself."""
    if not asked.safety_copies:
        return [RecordingIntent(ports, attempt, "recording_intent", inject={"safety_copies": None})]
    return [
        CreatingSafetyCopies(ports, attempt, "creating_safety_copies", asked=asked, provides="safety_copies"),
        RecordingIntent(ports, attempt, "recording_intent"),
    ]


class RestoreDone(RestoreStep):
    """Settle by the outcomes: available, or restore-error with the volumes that failed."""

    def execute(
        self,
        held: dict[str, Any] | None,
        released: dict[str, Any] | None,
        updated: dict[str, Any] | None,
        **outcomes: dict[str, Any],
    ) -> None:
        failed = {outcome["volume_id"]: outcome for outcome in outcomes.values() if not outcome["ok"]}
        if failed:
            fault = Fault(*describe_outcomes(failed.values(), "restored"), self.ports.now())
            settlement = _restore_failed(
                fault,
                {volume_id: self.asked.copies[volume_id] for volume_id in failed},
                untouched_by(self.asked, self.snapshot(), outcomes.values(), committed=True),
            )
        elif held is not None and fence_lost(held):
            settlement = _restore_failed(Fault(held["code"], held["message"], self.ports.now()), _all(self.snapshot()))
        elif released is not None and still_fenced(released):
            # No volume is left to restore, but a retry takes the fence away.
            settlement = _restore_failed(Fault(released["code"], released["message"], self.ports.now()), {})
        else:
            settlement = settle_whole(Event.RESTORED, released, updated, self.ports.now())
        self.settle(settlement)


def _settle_failure(
    ports: Ports, attempt: Attempt, asked: RestoreArguments, names: dict[str, str], failure: Failure
) -> Settlement:
    operation = ports.operations.get(attempt.operation.id)
    whole = settle_if_whole(Event.RESTORED, names.values(), failure)
    if whole is not None:
        return whole
    undone = failure.undone and not operation.committed and asked.action is Action.RESTORE
    if undone and _is_free(ports, operation):
        fault = failure.fault
        if not _is_up_again(ports, operation):
            fault = replace(fault, message=f"{fault.message} The instance, which ran before, is not up again.")
        maps = {"temp_snapshots": None, "failed_snapshots": None}
        return Settlement(
            Event.RESTORE_UNDONE, succeeded=False, fault=fault, maps=maps, untouched=frozenset(), unfence=True
        )
    if fence_lost(failure.results.get("confirming_fence")):
        return _restore_failed(failure.fault, _all(ports.snapshots.get(operation.snapshot_id)))
    done = {r["volume_id"] for r in failure.results.values() if isinstance(r, dict) and r.get("ok")}
    snapshot = ports.snapshots.get(operation.snapshot_id)
    untouched = untouched_by(asked, snapshot, failure.results.values(), committed=operation.committed)
    return _restore_failed(failure.fault, {v: c for v, c in asked.copies.items() if v not in done}, untouched)


def _is_free(ports: Ports, operation: Operation) -> bool:
    """Whether the platform has no fence of ours any more; in doubt it has, and a retry takes it away."""
    try:
        return ports.compute.fenced_by(operation.instance_id) != operation.snapshot_id
    except StillframeError:
        LOG.exception("task %s: nobody knows whether the instance is free", operation.id)
        return False


def _is_up_again(ports: Ports, operation: Operation) -> bool:
    """Whether the instance is as it was found; in doubt it is not."""
    fence = ports.operations.fence(operation.instance_id)
    if fence is None or not fence.was_active:
        return True
    try:
        return ports.compute.get_instance(operation.instance_id).power_state is not PowerState.SHUTOFF
    except StillframeError:
        LOG.exception("task %s: nobody knows whether the instance is up again", operation.id)
        return False


def _all(snapshot: InstanceSnapshot) -> dict[str, str]:
    return dict(snapshot.snapshots or {})


def _restore_failed(fault: Fault, failed: dict[str, str], untouched: frozenset[str] = frozenset()) -> Settlement:
    return Settlement(
        Event.RESTORE_FAILED, succeeded=False, fault=fault, maps={"failed_snapshots": failed}, untouched=untouched
    )
