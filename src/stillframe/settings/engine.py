"""How operations are worked on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from oslo_config import cfg

from stillframe.domain.arguments import Action
from stillframe.settings.groups import Group

OPTIONS: Final = [
    cfg.IntOpt("workers", default=8, min=1, help="Number of operations carried out at the same time."),
    cfg.IntOpt("volume_workers", default=16, min=1, help="Volumes restored at the same time, over all operations."),
    cfg.IntOpt("max_attempts", default=10, min=1, help="Attempts of an operation before it is given up."),
    cfg.IntOpt("snapshot_deadline", default=3600, min=1, help="Seconds until a snapshot fails."),
    cfg.IntOpt("delete_deadline", default=86400, min=1, help="Seconds until a deletion fails."),
    cfg.IntOpt("restore_deadline", default=86400, min=1, help="Seconds until a restore, retry or rollback fails."),
    cfg.FloatOpt(
        "claim_seconds",
        default=30,
        min=1,
        help="Seconds until a worker's claim on an operation runs out if it is not renewed. When a worker dies, other "
        "workers take up its operations after this time.",
    ),
    cfg.FloatOpt(
        "hang_seconds",
        default=300,
        min=1,
        help="Seconds that a call to a platform may hang past the deadline of its operation. Then the call is given "
        "up, and the instance is free for other operations; 'stillframe worker' hands its other operations on "
        "and ends, so that its supervisor starts it again.",
    ),
    cfg.IntOpt(
        "keep_records", default=604800, min=0, help="Seconds for which records of finished operations are kept."
    ),
    cfg.IntOpt(
        "janitor_interval",
        default=3600,
        min=0,
        help="Seconds between two rounds of the janitor, which removes leftovers that certainly belong to this "
        "service and that nobody needs; 0 switches it off. It recognizes them by the records of operations, so "
        "keep_records has to be much longer.",
    ),
    cfg.IntOpt(
        "janitor_grace",
        default=3600,
        min=0,
        help="Seconds after the end of an operation before the janitor may remove what it left behind.",
    ),
]

GROUP: Final = Group("engine", OPTIONS)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How operations are worked on."""

    workers: int
    volume_workers: int
    max_attempts: int
    deadlines: dict[Action, timedelta]
    claim_seconds: float
    hang_seconds: float
    keep_records: timedelta
    janitor_interval: timedelta
    janitor_grace: timedelta


def read(conf: cfg.ConfigOpts) -> EngineSettings:
    """What the options say."""
    group = conf.engine
    restore = timedelta(seconds=group.restore_deadline)
    return EngineSettings(
        workers=group.workers,
        volume_workers=group.volume_workers,
        max_attempts=group.max_attempts,
        deadlines={
            Action.SNAPSHOT: timedelta(seconds=group.snapshot_deadline),
            Action.DELETE: timedelta(seconds=group.delete_deadline),
            Action.RESTORE: restore,
            Action.RETRY: restore,
            Action.ROLLBACK: restore,
        },
        claim_seconds=group.claim_seconds,
        hang_seconds=group.hang_seconds,
        keep_records=timedelta(seconds=group.keep_records),
        janitor_interval=timedelta(seconds=group.janitor_interval),
        janitor_grace=timedelta(seconds=group.janitor_grace),
    )
