"""Rolling back a restore that failed: every volume goes back to its safety copy."""

from __future__ import annotations

from stillframe.domain.arguments import RestoreArguments
from stillframe.engine.work import Attempt, Work
from stillframe.flows.restore_steps import (
    ConfirmingFence,
    DeletingSafetyCopies,
    FencingInstance,
    RecordingIntent,
    ReleasingInstance,
    RestoringVolume,
    judge_by,
)
from stillframe.flows.step import Ports, SettlingOperation


def plan(ports: Ports, attempt: Attempt, asked: RestoreArguments) -> Work:
    """The work of `Action.ROLLBACK`: its copies are the safety copies."""
    fencing = FencingInstance(ports, attempt, asked)
    intent = RecordingIntent(ports, attempt, None)
    volumes = [RestoringVolume(ports, attempt, asked, "rolling_back_volume", volume_id) for volume_id in asked.copies]
    confirming = ConfirmingFence(ports, attempt, volumes)
    releasing = ReleasingInstance(ports, attempt, confirming)
    deleting = DeletingSafetyCopies(ports, attempt, releasing)
    judge = judge_by(ports, attempt, asked, volumes, confirming, releasing, deleting)
    done = SettlingOperation(ports, attempt, [*volumes, confirming, releasing, deleting], judge)
    return Work(
        "InstRollbackFlow",
        [fencing, intent, volumes, confirming, releasing, deleting, done],
        judge,
        weights={volume.name: 80 / len(volumes) for volume in volumes},
        parallel=len(volumes) > 1,
    )
