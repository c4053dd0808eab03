"""What operations left behind: copies and fences of nobody, operations without end, snapshots that wait for help."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from stillframe.cli.health.finding import Finding, fail, ok, warn
from stillframe.domain.errors import StillframeError
from stillframe.domain.status import Status, meaning
from stillframe.drivers.local.copies import Copies
from stillframe.drivers.local.declaration import Declarations
from stillframe.drivers.local.files import Files
from stillframe.store.operations import OperationStore
from stillframe.store.snapshots import ListQuery, SnapshotStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from stillframe.domain.snapshot import InstanceSnapshot
    from stillframe.main import Drivers
    from stillframe.settings import Settings
    from stillframe.store.database import Database

_PAGE: Final = 1000
_BUSY: Final = (Status.CREATING, Status.RESTORING, Status.ROLLING_BACK, Status.DELETING)
_WAITING: Final = (Status.ERROR, Status.RESTORE_ERROR, Status.ROLLBACK_ERROR, Status.ERROR_DELETING)
# While a snapshot is in one of these, its instance must not run.
_FENCING: Final = frozenset(
    {Status.RESTORING, Status.RESTORE_ERROR, Status.ROLLING_BACK, Status.ROLLBACK_ERROR}
    | {Status.DELETING, Status.ERROR_DELETING}
)


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
    worked_on = {operation.snapshot_id for operation in unfinished}
    for snapshot in _in(database, *_BUSY):
        if snapshot.id not in worked_on:
            yield fail(
                "instance snapshot", f"{snapshot.id} is {snapshot.status} with no operation", "report this as a bug"
            )
    for snapshot in _in(database, *_WAITING):
        yield warn("instance snapshot", f"{_named(snapshot)} is {snapshot.status}", meaning(snapshot.status))


def copies(settings: Settings, database: Database, drivers: Drivers) -> Iterator[Finding]:
    """Copies in the back end that belong to no instance snapshot."""
    try:
        found = drivers.storage.find(None)
        known = SnapshotStore(database).ids()
        # What was deleted in between was found before and is not known after.
        lost = defaultdict(list)
        for copy in drivers.storage.find(None) if any(one.name.snapshot_id not in known for one in found) else ():
            if copy.name.snapshot_id not in known:
                lost[copy.name.snapshot_id].append(copy)
    except StillframeError as error:
        yield fail("copies", error.message, "see that the platform behind answers")
        return
    for snapshot_id, left in lost.items():
        where = ", ".join(_place(settings, copy.id) for copy in left)
        size = sum(copy.size for copy in left)
        yield warn(
            "copies",
            f"{len(left)} of instance snapshot {snapshot_id}, which is unknown here ({size} bytes): {where}",
            "if no other service keeps its copies there, remove them by hand",
        )
    if not lost:
        yield ok("copies", f"{len(found)}, all of known instance snapshots")


def fences(database: Database, drivers: Drivers) -> Iterator[Finding]:
    """Instances that are kept from starting although no restore is under way or waits for help."""
    store, wanted, problems, count = OperationStore(database), _fencing(database), 0, 0
    try:
        for instance in drivers.compute.list_instances(None):
            recorded = store.fence(instance.id)
            owners = {drivers.compute.fenced_by(instance.id), recorded.snapshot_id if recorded else None} - {None}
            count += bool(owners)
            for owner in owners - wanted:
                problems += 1
                yield fail(
                    "fence",
                    f"instance {instance.name} is fenced for instance snapshot {owner}, which needs no fence",
                    "restart the service; if the fence stays, remove it from the driver's state",
                )
    except StillframeError as error:
        yield fail("fences", error.message, "see that the platform behind answers")
        return
    if not problems:
        yield ok("fences", f"{count}, each with its reason")


def _in(database: Database, *statuses: Status) -> Iterator[InstanceSnapshot]:
    for status in statuses:
        query = ListQuery(project_id=None, limit=_PAGE, filters={"status": status.value})
        yield from SnapshotStore(database).list(query)


def _fencing(database: Database) -> set[str | None]:
    return {snapshot.id for snapshot in _in(database, *_FENCING)}


def _named(snapshot: InstanceSnapshot) -> str:
    return f"'{snapshot.name}' ({snapshot.id}) of instance {snapshot.instance_id}"


def _place(settings: Settings, copy_id: str) -> str:
    """Where a copy lies, if that is on this machine."""
    if settings.drivers.storage != "local":
        return copy_id
    local = Copies(Files(), Declarations(settings.drivers.instances_dir), settings.state_dir / "local")
    return str(local.locate(copy_id) or copy_id)
