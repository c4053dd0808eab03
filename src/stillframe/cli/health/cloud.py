"""The way to the platform: whether the service gets in there, with what it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillframe.cli.health.finding import Finding, fail, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stillframe.main import Drivers


def login(drivers: Drivers) -> Iterator[Finding]:
    """What the drivers find wrong with their own login; those that need none are silent."""
    if drivers.problems is None:
        return
    found = list(drivers.problems())
    for problem in found:
        yield (fail if problem.grave else warn)("login", problem.what, problem.mend)
    if not found:
        yield ok("login", "the service's user can log in and has its roles")
