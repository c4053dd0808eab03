"""Removing what `stillframe doctor` found to be left over: the plan, the question, and what came of it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stillframe import main
from stillframe.cli.exit_codes import CommandFailed, ExitCode, usable_settings
from stillframe.cli.health.leftovers import place
from stillframe.cli.health.service import open_database
from stillframe.domain.errors import StillframeError
from stillframe.domain.leftover import LeftoverKind
from stillframe.drivers.registry import open_drivers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stillframe.drivers.platform import Drivers
    from stillframe.service.leftovers import Leftover, Leftovers
    from stillframe.settings import Settings


@dataclass(frozen=True, slots=True)
class Repair:
    """One leftover, and what came of it: `removed`, `spared`, `failed`, or `left` where nothing was to be done."""

    kind: str
    about: str
    place: str
    result: str
    detail: str


def repair(settings: Settings, also: frozenset[str], agreed: Callable[[Sequence[str]], bool]) -> Sequence[Repair]:
    """Look, ask whether the plan is agreed to, and remove; `also` are ids whose leftovers need not be certain.

    It may run beside the service. Raises `CommandFailed` if the database cannot be used.
    """
    database, findings = open_database(settings)
    if database is None:
        raise CommandFailed(ExitCode.UNAVAILABLE, f"the database cannot be used: {findings[0].detail}")
    with closing(database), usable_settings():
        drivers = open_drivers(settings)
        leftovers = main.build_leftovers(settings, database, drivers)
        done = [*_look(drivers, leftovers, also)]
        unknown = also - {leftover.about for leftover, _where, _to_remove in done}
        if unknown:
            raise CommandFailed(ExitCode.NOT_FOUND, f"nothing was left over of: {', '.join(sorted(unknown))}")
        plan = [(leftover, where) for leftover, where, to_remove in done if to_remove]
        lines = [f"{one.kind} {where} of {one.about}: {one.why}" for one, where in plan]
        go_on = bool(plan) and agreed(lines)
        return [
            _remove(leftovers, leftover, where) if to_remove and go_on else _left(leftover, where, asked=to_remove)
            for leftover, where, to_remove in done
        ]


def _look(drivers: Drivers, leftovers: Leftovers, also: frozenset[str]) -> Iterator[tuple[Leftover, str, bool]]:
    for kind in LeftoverKind:
        try:
            found = leftovers.look(kind)
        except StillframeError as error:
            raise CommandFailed(
                ExitCode.UNAVAILABLE, f"nobody knows what was left over, so nothing was removed: {error.message}"
            ) from None
        for leftover in found:
            yield leftover, place(drivers, leftover), leftover.sure or leftover.about in also


def _remove(leftovers: Leftovers, leftover: Leftover, where: str) -> Repair:
    outcome, why = leftovers.remove(leftover, lambda: None)
    return Repair(leftover.kind, leftover.about, where, outcome, why or leftover.why)


def _left(leftover: Leftover, where: str, *, asked: bool) -> Repair:
    detail = leftover.why if asked else f"{leftover.why}; it needs --also {leftover.about}"
    return Repair(leftover.kind, leftover.about, where, "left", detail)
