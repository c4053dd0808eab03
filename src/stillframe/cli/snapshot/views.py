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
_TIMES: Final = frozenset({"created_at", "updated_at"})


def keys() -> tuple[str, ...]:
    """What a service of this release tells of an instance snapshot."""
    from stillframe.api.schemas import SnapshotView  # noqa: PLC0415  # takes a while to load, and is seldom needed

    return tuple(SnapshotView.model_fields)


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
        return fields({**(wait(client, snapshot_id, task_uri, title) or {}), **accepted}, parsed_args.columns)
    try:
        return fields({**client.snapshot(snapshot_id), **accepted}, parsed_args.columns)
    except CommandFailed:
        return fields(accepted, parsed_args.columns)
