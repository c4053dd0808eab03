"""Which drivers, and the policy around them; their own options are in their packages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from oslo_config import cfg

from stillframe.settings.extensions import Extension, chosen
from stillframe.settings.groups import Group

OPTIONS: Final = [
    cfg.StrOpt("compute", help="What runs the instances: the name of a compute driver that is installed."),
    cfg.StrOpt("storage", help="What holds the volumes: the name of a storage driver that is installed."),
    cfg.FloatOpt("graceful_stop_seconds", default=60, min=0, help="How long a guest may take to shut down by itself."),
    cfg.IntOpt(
        "attempts",
        default=5,
        min=1,
        help="Tries of a call of a request, whose answer somebody waits for, while the platform behind is unavailable; "
        "and of a cut, each of which holds the guest still.",
    ),
    cfg.IntOpt(
        "operation_attempts",
        default=20,
        min=1,
        help="The same for calls of an operation, at whose end nobody waits: with the other defaults seven minutes.",
    ),
    cfg.FloatOpt("first_wait", default=0.5, min=0, help="Seconds before the second try; it doubles from there."),
    cfg.FloatOpt("longest_wait", default=30, min=0, help="Most seconds between two tries."),
    cfg.IntOpt("concurrent_calls", default=32, min=1, help="Calls that work on volumes at a time."),
]

GROUP: Final = Group("drivers", OPTIONS)


@dataclass(frozen=True, slots=True)
class DriverSettings:
    """Which drivers, and the policy around them; times in seconds."""

    compute: str
    storage: str
    graceful_stop_seconds: float
    attempts: int
    operation_attempts: int
    first_wait: float
    longest_wait: float
    concurrent_calls: int


def read(conf: cfg.ConfigOpts, found: Sequence[Extension]) -> DriverSettings:
    """What the options say; raises `InvalidInput` for a driver that none of the packages offers."""
    group = conf.drivers
    return DriverSettings(
        compute=chosen(found, "compute", group.compute),
        storage=chosen(found, "storage", group.storage),
        graceful_stop_seconds=group.graceful_stop_seconds,
        attempts=group.attempts,
        operation_attempts=group.operation_attempts,
        first_wait=group.first_wait,
        longest_wait=group.longest_wait,
        concurrent_calls=group.concurrent_calls,
    )
