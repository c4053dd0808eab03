"""How instance snapshots are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stillframe.cli.command import Fields, MapColumn, TimeColumn, fields
from stillframe.cli.exit_codes import CommandFailed
from stillframe.cli.watching import wait

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from stillframe.cli.client import Client, Document

#: What a list shows: it fits into 80 columns.
COLUMNS: Final = ("id", "name", "status", "created_at")
MORE_COLUMNS: Final = ("instance_id", "description", "updated_at", "consistency", "fault", "project_id", "user_id")
#: What the service tells of an instance snapshot; a later one may tell more.
KEYS: Final = (
    "id",
    "name",
    "description",
    "status",
    "instance_id",
    "created_at",
    "updated_at",
    "task_uri",
    "snapshots",
    "temp_snapshots",
    "failed_snapshots",
    "project_id",
    "user_id",
    "fault",
    "consistency",
    "minimum_consistency",
    "guest_may_be_held",
)
_TIMES: Final = frozenset({"created_at", "updated_at"})


def row(snapshot: Document, columns: Sequence[str]) -> Sequence[Any]:
    """One line of a list."""
    return tuple(_shown(column, snapshot.get(column)) for column in columns)


def _shown(column: str, value: Any) -> Any:
    if column in _TIMES:
        return TimeColumn(value)
    return MapColumn(value) if isinstance(value, dict) else value


def outcome(client: Client, parsed_args: Namespace, snapshot_id: str, task_uri: str, title: str) -> Fields:
    """After a request was accepted: the snapshot at the end of the operation, or without waiting as it is now.

    Without waiting nothing that goes wrong from here on is a failure, for the request has been accepted.
    """
    accepted = {"id": snapshot_id, "task_uri": task_uri}
    if parsed_args.wait:
        return fields({**accepted, **(wait(client, snapshot_id, task_uri, title) or {})}, KEYS)
    try:
        return fields({**client.snapshot(snapshot_id), **accepted}, KEYS)
    except CommandFailed:
        return fields(accepted, KEYS)
