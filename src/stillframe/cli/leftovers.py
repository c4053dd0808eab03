"""What operations left behind, as `stillframe doctor` tells it."""

from __future__ import annotations

import shlex
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Final

from stillframe.domain.leftover import LeftoverKind
from stillframe.drivers.finding import Check, Finding, fail, ok, warn
from stillframe.drivers.leftovers import DriverLeftovers, together
from stillframe.main import build_leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stillframe.drivers.platform import Drivers
    from stillframe.service.leftovers import Leftover, Leftovers
    from stillframe.settings import Settings
    from stillframe.store.database import Database

#: What each kind is called.
CHECKS: Final = {
    LeftoverKind.COPY: "copies",
    LeftoverKind.FENCE: "fences",
    LeftoverKind.QUIESCE: "guests held still",
    LeftoverKind.LOCK: "instance locks",
    LeftoverKind.DRAFT: "drafts",
}
_LOST: Final = "copies that are lost"
_ANSWER: Final = "see that the platform behind answers"
# What keeps somebody from using an instance.
_FAILURES: Final = frozenset({LeftoverKind.FENCE, LeftoverKind.QUIESCE, LeftoverKind.LOCK})


def checks(settings: Settings, database: Database, drivers: Drivers) -> Sequence[Check]:
    """What was left behind in the platform and in the store, by kind."""
    found = build_leftovers(settings, database, drivers)
    return [Check(name, partial(_findings, kind, found, drivers), _ANSWER) for kind, name in CHECKS.items()]


def _findings(kind: LeftoverKind, found: Leftovers, drivers: Drivers) -> Iterator[Finding]:
    left, check = found.look(kind), CHECKS[kind]
    for (about, why, sure), some in _grouped(left).items():
        told = fail if kind in _FAILURES else warn
        yield told(check, _told(drivers, about, why, some), _mend(kind, about, sure=sure))
    if not left:
        yield ok(check, "nothing was left behind")


def losses(settings: Settings, database: Database | None, drivers: Drivers) -> Check:
    """As a check: see `_losses`."""
    return Check(_LOST, partial(_losses, settings, database, drivers), _ANSWER)


def _losses(settings: Settings, database: Database | None, drivers: Drivers) -> Iterator[Finding]:
    """Copies that are on record and cannot be restored from, and what is on no record and lies where copies lie."""
    of_drivers = together(drivers.all(DriverLeftovers))
    if database is not None:
        lost = build_leftovers(settings, database, drivers).losses()
    else:
        lost = of_drivers.losses() if of_drivers is not None else ()
    orphans = of_drivers.orphans() if of_drivers is not None else ()
    for loss in lost:
        mend = "put them back, or delete the instance snapshot"
        yield fail(_LOST, f"copy {loss.copy_id} of {loss.snapshot_id}: {loss.why}", mend)
    if not lost:
        yield ok(_LOST, "none")
    if orphans:
        mend = f"if no other Stillframe has them: rm -r {shlex.join(orphans)}"
        yield warn("orphans", f"no record of this service knows {', '.join(orphans)}", mend)
    else:
        yield ok("orphans", "none")


def place(drivers: Drivers, leftover: Leftover) -> str:
    """Where it lies, if that is on this machine, else its id."""
    of_drivers = together(drivers.all(DriverLeftovers))
    if of_drivers is None or leftover.kind is not LeftoverKind.COPY:
        return leftover.id
    return of_drivers.place(leftover.id) or leftover.id


def _grouped(left: Sequence[Leftover]) -> dict[tuple[str, str, bool], list[Leftover]]:
    groups: dict[tuple[str, str, bool], list[Leftover]] = defaultdict(list)
    for leftover in left:
        groups[leftover.about, leftover.why, leftover.sure].append(leftover)
    return groups


def _told(drivers: Drivers, about: str, why: str, some: Sequence[Leftover]) -> str:
    where = ", ".join(place(drivers, leftover) for leftover in some)
    size = sum(leftover.size for leftover in some)
    return f"{len(some)} of {about}: {why}: {where}" + (f" ({size} bytes)" if size else "")


def _mend(kind: LeftoverKind, about: str, *, sure: bool) -> str:
    if kind is LeftoverKind.QUIESCE:
        return (
            "nothing while a worker runs, which tries again every few seconds; or at once: stillframe doctor --repair; "
            "where the guest's agent and monitor do not answer: restart the guest"
        )
    if sure:
        return "nothing: the janitor removes it; or at once: stillframe doctor --repair"
    return f"if it is certain that nobody needs it: stillframe doctor --repair --also {about}"
