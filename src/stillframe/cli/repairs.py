"""Removing what operations left behind, as `stillframe doctor --repair` does; nothing that is silent is waited for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from stillframe.cli.checks import Answers, Checks, unanswered
from stillframe.cli.exit_codes import CommandFailed, ExitCode, usable_settings
from stillframe.cli.health import open_database
from stillframe.cli.leftovers import CHECKS, place
from stillframe.domain.errors import StillframeError, Unavailable
from stillframe.domain.leftover import LeftoverKind
from stillframe.drivers.registry import open_drivers
from stillframe.main import build_leftovers
from stillframe.service.leftovers import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stillframe.drivers.platform import Drivers
    from stillframe.service.leftovers import Leftover, Leftovers
    from stillframe.settings import Settings

_DATABASE: Final = "see that it runs and that [database] connection is right"


@dataclass(frozen=True, slots=True)
class Planned:
    """One leftover, where it is, and whether it is to be removed."""

    leftover: Leftover
    place: str
    to_remove: bool

    @property
    def line(self) -> str:
        """As it is shown to whoever has to agree."""
        return f"{self.leftover.kind} {self.place} of {self.leftover.about}: {self.leftover.why}"

    def left(self) -> Repair:
        """What came of it where nothing was done."""
        one = self.leftover
        detail = one.why if self.to_remove else f"{one.why}; it needs --also {one.about}"
        return Repair(one.kind, one.about, self.place, "left", detail)


@dataclass(frozen=True, slots=True)
class Repair:
    """One leftover, and what came of it: `removed`, `spared`, `failed`, or `left` where nothing was to be done."""

    kind: str
    about: str
    place: str
    result: str
    detail: str


def plan(settings: Settings, also: frozenset[str], seconds: float) -> Iterator[Planned]:
    """What there is, and what is to be removed; `also` are ids whose leftovers need not be certain.

    Raises `CommandFailed` where nobody knows what was left over, because something is silent for `seconds`, too.
    """
    drivers, found = _opened(settings, seconds)
    seen: set[str] = set()
    for kind in LeftoverKind:
        try:
            some = Answers(seconds).to(CHECKS[kind], partial(_look, kind, found, drivers))
        except StillframeError as error:
            raise CommandFailed(
                ExitCode.UNAVAILABLE, f"nobody knows what was left over, so nothing was removed: {error.message}"
            ) from None
        for leftover, where in some:
            seen.add(leftover.about)
            yield Planned(leftover, where, leftover.sure or leftover.about in also)
    if also - seen:
        raise CommandFailed(ExitCode.NOT_FOUND, f"nothing was left over of: {', '.join(sorted(also - seen))}")


def _look(kind: LeftoverKind, found: Leftovers, drivers: Drivers) -> list[tuple[Leftover, str]]:
    return [(leftover, place(drivers, leftover)) for leftover in found.look(kind)]


def removals(settings: Settings, planned: Sequence[Planned], seconds: float) -> Iterator[Repair]:
    """Remove, which may be done beside the service, and say what came of it; one that is silent keeps up no other."""
    _drivers, found = _opened(settings, seconds)
    answers = Answers(seconds).of({one.line: partial(found.remove, one.leftover) for one in planned if one.to_remove})
    for one in planned:
        yield _came_of(one, answers[one.line], seconds) if one.to_remove else one.left()


def _came_of(planned: Planned, answer: tuple[Outcome, str] | StillframeError, seconds: float) -> Repair:
    one = planned.leftover
    if isinstance(answer, StillframeError):
        outcome, why = Outcome.FAILED, f"what it lies on {unanswered(seconds)}; look again whether it was removed"
    else:
        outcome, why = answer
    return Repair(one.kind, one.about, planned.place, outcome, why or one.why)


def _opened(settings: Settings, seconds: float) -> tuple[Drivers, Leftovers]:
    database, findings = Checks(seconds).opened("database", partial(open_database, settings), _DATABASE)
    if database is None:
        raise CommandFailed(ExitCode.UNAVAILABLE, f"the database cannot be used: {findings[0].detail}")
    with usable_settings():
        try:
            drivers = Answers(seconds).to("the platform behind", partial(open_drivers, settings))
            found = Answers(seconds).to("database", partial(build_leftovers, settings, database, drivers))
        except Unavailable as error:
            raise CommandFailed(ExitCode.UNAVAILABLE, error.message) from None
    return drivers, found
