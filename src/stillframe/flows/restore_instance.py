"""Restoring an instance in place, and retrying the volumes whose restore failed."""

from __future__ import annotations

from stillframe.domain.arguments import RestoreArguments
from stillframe.engine.work import Attempt, Work
from stillframe.flows.restore_steps import (
    ConfirmingFence,
    CreatingSafetyCopies,
    DeletingSafetyCopies,
    FencingInstance,
    RecordingIntent,
    ReleasingInstance,
    RestoringVolume,
    judge_by,
)
from stillframe.flows.step import Ports, SettlingOperation


def plan(ports: Ports, attempt: Attempt, asked: RestoreArguments) -> Work:
    """The work of `Action.RESTORE` and `Action.RETRY`."""
    fencing = FencingInstance(ports, attempt, asked)
    # A retry works on the safety copies of the restore that failed; only one that came to none takes them itself.
    safety = [CreatingSafetyCopies(ports, attempt, asked)] if asked.safety_copies else []
    intent = RecordingIntent(ports, attempt, safety[0] if safety else None)
    volumes = [RestoringVolume(ports, attempt, asked, "restoring_volume", volume_id) for volume_id in asked.copies]
    confirming = ConfirmingFence(ports, attempt, volumes)
    releasing = ReleasingInstance(ports, attempt, confirming)
    deleting = DeletingSafetyCopies(ports, attempt, releasing)
    judge = judge_by(ports, attempt, asked, volumes, confirming, releasing, deleting)
    done = SettlingOperation(ports, attempt, [*volumes, confirming, releasing, deleting], judge)
    # A back end that copies for a restore copies as much for the safety copies.
    weights = {task.name: 45.0 for task in safety} | {volume.name: 45 / len(volumes) for volume in volumes}
    return Work(
        "InstRestoreFlow",
        [fencing, *safety, intent, volumes, confirming, releasing, deleting, done],
        judge,
        weights=weights,
        parallel=len(volumes) > 1,
    )
