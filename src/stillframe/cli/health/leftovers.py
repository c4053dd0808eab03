"""What operations left behind: what belongs to nobody, operations without end, snapshots that wait for help."""

from __future__ import annotations

import shlex
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from stillframe.domain.errors import StillframeError
from stillframe.domain.leftover import LeftoverKind
from stillframe.domain.status import Status, meaning
from stillframe.drivers.finding import Finding, fail, ok, warn
from stillframe.drivers.remains import Remains, together
from stillframe.main import build_leftovers
from stillframe.store.leftovers import LeftoverStore
from stillframe.store.operations import OperationStore
from stillframe.store.snapshots import ListQuery, SnapshotStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from stillframe.domain.snapshot import InstanceSnapshot
    from stillframe.drivers.platform import Drivers
    from stillframe.service.leftovers import Leftover
    from stillframe.settings import Settings
    from stillframe.store.database import Database

_PAGE: Final = 1000
_BUSY: Final = (Status.CREATING, Status.RESTORING, Status.ROLLING_BACK, Status.DELETING)
_WAITING: Final = (Status.ERROR, Status.RESTORE_ERROR, Status.ROLLBACK_ERROR, Status.ERROR_DELETING)
_CHECKS: Final = {
    LeftoverKind.COPY: "copies",
    LeftoverKind.FENCE: "fences",
    LeftoverKind.QUIESCE: "guests held still",
    LeftoverKind.LOCK: "instance locks",
    LeftoverKind.SCRAP: "drafts",
}
# What keeps somebody from using an instance.
_FAILURES: Final = frozenset({LeftoverKind.FENCE, LeftoverKind.QUIESCE, LeftoverKind.LOCK})


def operations(database: Database, now: datetime) -> Iterator[Finding]:
    """Operations that are not final, and snapshots that wait for one or for somebody."""
    unfinished = OperationStore(database).unfinished()
    late = [operation for operation in unfinished if operation.deadline < now]
    for operation in late:
        yield fail(
            "operation",
            f"{operation.action} of {operation.snapshot_id} should have ended by {operation.deadline}",
            "start the service; if it runs, its log says what the operation waits for",
        )
    if not late:
        yield ok("operations", f"{len(unfinished)} open, none past its deadline")
    for lock in LeftoverStore(database).locks():
        holder = lock.holder
        if holder is not None and holder.state.final:
            yield warn(
                "operation",
                f"{holder.action} of {holder.snapshot_id} has ended and holds its instance, for a call of it hangs",
                "see what the platform does; the call is given up after [engine] hang_seconds",
            )
    worked_on = {operation.snapshot_id for operation in unfinished}
    for snapshot in _in(database, *_BUSY):
        if snapshot.id not in worked_on:
            yield fail(
                "instance snapshot", f"{snapshot.id} is {snapshot.status} with no operation", "report this as a bug"
            )
    for snapshot in _in(database, *_WAITING):
        yield warn("instance snapshot", f"{_named(snapshot)} is {snapshot.status}", meaning(snapshot.status))


def leftovers(settings: Settings, database: Database, drivers: Drivers) -> Iterator[Finding]:
    """What was left behind in the platform and in the store, by kind."""
    found = build_leftovers(settings, database, drivers)
    for kind, check in _CHECKS.items():
        try:
            left = found.look(kind)
        except StillframeError as error:
            yield fail(check, error.message, "see that the platform behind answers")
            continue
        for (about, why, sure), some in _grouped(left).items():
            told = fail if kind in _FAILURES else warn
            yield told(check, _told(drivers, about, why, some), _mend(kind, about, sure=sure))
        if not left:
            yield ok(check, "nothing was left behind")


def losses(drivers: Drivers) -> Iterator[Finding]:
    """Copies that are on record and cannot be restored from, and what is on no record and lies where copies lie."""
    remains = together(drivers.all(Remains))
    if remains is None:
        return
    try:
        lost, orphans = remains.losses(), remains.orphans()
    except StillframeError as error:
        yield fail("copies that are lost", error.message, "see that the platform behind answers")
        return
    for loss in lost:
        mend = "put them back, or delete the instance snapshot"
        yield fail("copies that are lost", f"copy {loss.copy_id} of {loss.snapshot_id}: {loss.why}", mend)
    if not lost:
        yield ok("copies that are lost", "none")
    if orphans:
        mend = f"if no other Stillframe has them: rm -r {shlex.join(orphans)}"
        yield warn("orphans", f"no record of this service knows {', '.join(orphans)}", mend)
    else:
        yield ok("orphans", "none")


def place(drivers: Drivers, leftover: Leftover) -> str:
    """Where it lies, if that is on this machine, else its id."""
    remains = together(drivers.all(Remains))
    if remains is None or leftover.kind is not LeftoverKind.COPY:
        return leftover.id
    return remains.place(leftover.id) or leftover.id


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


def _in(database: Database, *statuses: Status) -> Iterator[InstanceSnapshot]:
    for status in statuses:
        query = ListQuery(project_id=None, limit=_PAGE, filters={"status": status.value})
        yield from SnapshotStore(database).list(query)


def _named(snapshot: InstanceSnapshot) -> str:
    return f"'{snapshot.name}' ({snapshot.id}) of instance {snapshot.instance_id}"
