"""Rolling back a restore that failed: every volume goes back to its safety copy."""

from __future__ import annotations

from stillframe.domain.arguments import RestoreArguments
from stillframe.engine.work import Attempt, Work
from stillframe.flows.restore_steps import (
    ConfirmingFence,
    FencingInstance,
    RecordingIntent,
    ReleasingInstance,
    RestoringVolume,
    UpdatingSnapshots,
    judge_by,
)
from stillframe.flows.step import Ports, SnapshotDone


def plan(ports: Ports, attempt: Attempt, asked: RestoreArguments) -> Work:
    """The work of `Action.ROLLBACK`: its copies are the safety copies."""
    fencing = FencingInstance(ports, attempt, asked)
    intent = RecordingIntent(ports, attempt, None)
    volumes = [RestoringVolume(ports, attempt, asked, "rolling_back_volume", volume_id) for volume_id in asked.copies]
    confirming = ConfirmingFence(ports, attempt, volumes)
    releasing = ReleasingInstance(ports, attempt, confirming)
    updating = UpdatingSnapshots(ports, attempt, releasing)
    judge = judge_by(ports, attempt, asked, volumes, confirming, releasing, updating)
    done = SnapshotDone(ports, attempt, [*volumes, confirming, releasing, updating], judge)
    return Work(
        "InstRollbackFlow",
        [fencing, intent, volumes, confirming, releasing, updating, done],
        judge,
        weights={volume.name: 80 / len(volumes) for volume in volumes},
        parallel=len(volumes) > 1,
    )
