"""How instance snapshots are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stillframe.cli.command import Fields, MapColumn, fields
from stillframe.cli.watching import wait

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from stillframe.cli.client import Client, Document

COLUMNS: Final = ("id", "name", "status", "instance_id", "created_at")
MORE_COLUMNS: Final = ("description", "updated_at", "consistency", "fault", "project_id", "user_id")


def row(snapshot: Document, columns: Sequence[str]) -> Sequence[Any]:
    """One line of a list."""
    values = (snapshot.get(column) for column in columns)
    return tuple(MapColumn(value) if isinstance(value, dict) else value for value in values)


def outcome(client: Client, parsed_args: Namespace, snapshot_id: str, task_uri: str, title: str) -> Fields:
    """After a request was accepted: the snapshot at the end of the operation, or where to ask for it."""
    if parsed_args.wait:
        ended = wait(client, snapshot_id, task_uri, title)
        if ended is not None:
            return fields(ended)
    return fields({"id": snapshot_id, "task_uri": task_uri})
