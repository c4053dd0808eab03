"""Which drivers, and the policy around them; their own options are in their packages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from oslo_config import cfg

from stillframe.settings.extensions import Extension, chosen, several
from stillframe.settings.groups import Group

OPTIONS: Final = [
    cfg.StrOpt("compute", help="Name of an installed compute driver, which looks after the instances."),
    cfg.ListOpt(
        "storage",
        help="Name of an installed storage driver, which looks after the volumes; of several, where instances have "
        "volumes of several kinds: each volume goes to the driver of its kind, and all are cut together.",
    ),
    cfg.FloatOpt(
        "graceful_stop_seconds", default=60, min=0, help="Seconds that a guest may take to shut down by itself."
    ),
    cfg.IntOpt(
        "attempts",
        default=5,
        min=1,
        help="How often a call to the platform is tried while the platform is unavailable, if a client waits for the "
        "answer. A cut is tried as often, since each try holds the guest still.",
    ),
    cfg.IntOpt(
        "operation_attempts",
        default=20,
        min=1,
        help="How often any other call of an operation is tried; with the other defaults it is tried for seven "
        "minutes.",
    ),
    cfg.FloatOpt("first_wait", default=0.5, min=0, help="Seconds before the second try; the wait doubles each time."),
    cfg.FloatOpt("longest_wait", default=30, min=0, help="Longest wait between two tries, in seconds."),
    cfg.IntOpt(
        "concurrent_calls",
        default=32,
        min=1,
        help="Number of calls that work on volumes at the same time in one process. Cuts are not limited.",
    ),
]

GROUP: Final = Group("drivers", OPTIONS)


@dataclass(frozen=True, slots=True)
class DriverSettings:
    """Which drivers, and the policy around them; times in seconds."""

    compute: str
    storage: tuple[str, ...]
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
        storage=several(found, "storage", group.storage),
        graceful_stop_seconds=group.graceful_stop_seconds,
        attempts=group.attempts,
        operation_attempts=group.operation_attempts,
        first_wait=group.first_wait,
        longest_wait=group.longest_wait,
        concurrent_calls=group.concurrent_calls,
    )
