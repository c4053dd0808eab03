"""Restoring an instance in place, and retrying the volumes whose restore failed."""

from __future__ import annotations

from stillframe.domain.arguments import RestoreArguments
from stillframe.engine.work import Attempt, Work
from stillframe.flows.restore_steps import (
    ConfirmingFence,
    CreatingSafetyCopies,
    FencingInstance,
    RecordingIntent,
    ReleasingInstance,
    RestoringVolume,
    UpdatingSnapshots,
    judge_by,
)
from stillframe.flows.step import Ports, SnapshotDone


def plan(ports: Ports, attempt: Attempt, asked: RestoreArguments) -> Work:
    """The work of `Action.RESTORE` and `Action.RETRY`."""
    fencing = FencingInstance(ports, attempt, asked)
    # A retry works on the safety copies of the restore that failed; only one that came to none takes them itself.
    safety = [CreatingSafetyCopies(ports, attempt, asked)] if asked.safety_copies else []
    intent = RecordingIntent(ports, attempt, safety[0] if safety else None)
    volumes = [RestoringVolume(ports, attempt, asked, "restoring_volume", volume_id) for volume_id in asked.copies]
    confirming = ConfirmingFence(ports, attempt, volumes)
    releasing = ReleasingInstance(ports, attempt, confirming)
    updating = UpdatingSnapshots(ports, attempt, releasing)
    judge = judge_by(ports, attempt, asked, volumes, confirming, releasing, updating)
    done = SnapshotDone(ports, attempt, [*volumes, confirming, releasing, updating], judge)
    # A back end that copies for a restore copies as much for the safety copies.
    weights = {task.name: 45.0 for task in safety} | {volume.name: 45 / len(volumes) for volume in volumes}
    return Work(
        "InstRestoreFlow",
        [fencing, *safety, intent, volumes, confirming, releasing, updating, done],
        judge,
        weights=weights,
        parallel=len(volumes) > 1,
    )
