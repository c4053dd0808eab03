"""Restoring an instance in place, and retrying the volumes whose restore failed."""

from __future__ import annotations

from functools import partial
from typing import Any

from taskflow.patterns import linear_flow, unordered_flow

from stillframe.domain.operation import Action, Settlement
from stillframe.domain.snapshot import Fault
from stillframe.domain.status import Event
from stillframe.engine.work import Attempt, Failure, Work
from stillframe.flows.restore_steps import (
    CheckingVolumes,
    CreatingSafetyCopies,
    FencingInstance,
    RecordingIntent,
    ReleasingInstance,
    RestoringVolume,
    UpdatingSnapshots,
    describe_outcomes,
    settle_whole,
    still_fenced,
)
from stillframe.flows.step import Ports, Step


def plan(ports: Ports, attempt: Attempt) -> Work:
    """The work of `Action.RESTORE` and `Action.RETRY`; its arguments: `copies`, volume id to copy id, and `force`."""
    copies: dict[str, str] = dict(attempt.operation.arguments["copies"])
    names = {volume_id: f"restoring_volume_{volume_id}" for volume_id in copies}
    args = (ports, attempt)
    restoring = unordered_flow.Flow("restoring_volumes").add(
        *(
            RestoringVolume(*args, names[volume_id], volume_id=volume_id, copy_id=copy_id, provides=names[volume_id])
            for volume_id, copy_id in copies.items()
        )
    )
    outcomes = list(names.values())
    flow = linear_flow.Flow("InstRestoreFlow").add(
        CheckingVolumes(*args, "checking_volumes", inject={"copies": copies}),
        FencingInstance(*args, "fencing_instance"),
        *_safety_steps(*args, copies),
        restoring,
        ReleasingInstance(*args, "releasing_instance", requires=outcomes, provides="released"),
        UpdatingSnapshots(*args, "updating_snapshots", requires=outcomes, provides="updated"),
        RestoreDone(*args, "SnapshotDone", requires=outcomes),
    )
    weights = {"creating_safety_copies": 10.0, **dict.fromkeys(outcomes, 80 / max(1, len(outcomes)))}
    settle_failure = partial(_settle_failure, ports, attempt, copies)
    return Work(flow, settle_failure, weights, parallel=len(copies) > 1)


def _safety_steps(ports: Ports, attempt: Attempt, copies: dict[str, str]) -> list[Step]:
    """A retry works on the safety copies of the restore that failed; only one that came to none takes them itself."""
    if not attempt.operation.arguments["safety_copies"]:
        return [RecordingIntent(ports, attempt, "recording_intent", inject={"safety_copies": None})]
    return [
        CreatingSafetyCopies(
            ports, attempt, "creating_safety_copies", inject={"copies": copies}, provides="safety_copies"
        ),
        RecordingIntent(ports, attempt, "recording_intent"),
    ]


class RestoreDone(Step):
    """Settle by the outcomes: available, or restore-error with the volumes that failed."""

    def execute(
        self, released: dict[str, Any] | None, updated: dict[str, str] | None, **outcomes: dict[str, Any]
    ) -> None:
        failed = {outcome["volume_id"]: outcome for outcome in outcomes.values() if not outcome["ok"]}
        if failed:
            fault = Fault(*describe_outcomes(failed.values(), "restored"), self.ports.now())
            copies = self.operation.arguments["copies"]
            settlement = _restore_failed(fault, {volume_id: copies[volume_id] for volume_id in failed})
        elif released is not None and still_fenced(released):
            # No volume is left to restore, but a retry takes the fence away.
            settlement = _restore_failed(Fault(released["code"], released["message"], self.ports.now()), {})
        else:
            settlement = settle_whole(self, Event.RESTORED, released, updated)
        self.ports.operations.finish(self.operation.id, settlement, self.ports.now())


def _settle_failure(ports: Ports, attempt: Attempt, copies: dict[str, str], failure: Failure) -> Settlement:
    committed = ports.operations.get(attempt.operation.id).committed
    if not committed and attempt.operation.action is Action.RESTORE and failure.undone:
        maps = {"temp_snapshots": None, "failed_snapshots": None}
        return Settlement(Event.RESTORE_UNDONE, succeeded=False, fault=failure.fault, maps=maps, unfence=True)
    done = {r["volume_id"] for r in failure.results.values() if isinstance(r, dict) and r.get("ok")}
    return _restore_failed(failure.fault, {v: c for v, c in copies.items() if v not in done})


def _restore_failed(fault: Fault, failed: dict[str, str]) -> Settlement:
    return Settlement(Event.RESTORE_FAILED, succeeded=False, fault=fault, maps={"failed_snapshots": failed})
