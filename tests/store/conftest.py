"""Each test of the store runs on each kind of database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from stillframe.engine.persistence import FlowBooks
from stillframe.store import schema
from stillframe.store.database import Database, connect
from stillframe.store.operations import OperationStore
from stillframe.store.queue import OperationQueue
from stillframe.store.snapshots import SnapshotStore
from stillframe.store.tables import METADATA
from tests.databases import Server, database, database_url, mariadb_server, postgresql_server, server_kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Store", "database", "database_url", "mariadb_server", "postgresql_server", "server_kind", "store"]


@dataclass(frozen=True, slots=True)
class Store:
    """A database at this release's schema without a row, and all that works on it."""

    database: Database
    snapshots: SnapshotStore
    operations: OperationStore
    queue: OperationQueue


@pytest.fixture(scope="session")
def migrated() -> dict[str, sa.URL]:
    """Databases at this release's schema, by kind: on servers, making one costs more than most tests do."""
    return {}


@pytest.fixture
def store(
    request: pytest.FixtureRequest, migrated: dict[str, sa.URL], server_kind: str, tmp_path: Path
) -> Iterator[Store]:
    url = migrated.get(server_kind, sa.make_url(f"sqlite:///{tmp_path / 'stillframe.sqlite'}"))
    if server_kind not in migrated and server_kind != "sqlite":
        server: Server = request.getfixturevalue(f"{server_kind}_server")
        url = migrated[server_kind] = server.create_database()
    opened = connect(url.render_as_string(hide_password=False), sqlite_synchronous="OFF")
    schema.upgrade(opened)
    yield Store(opened, SnapshotStore(opened), OperationStore(opened), OperationQueue(opened))
    if server_kind != "sqlite":
        empty(opened)
    opened.close()


def empty(database: Database) -> None:
    with database.writer.begin() as connection:
        for table in METADATA.sorted_tables:
            connection.execute(sa.delete(table))
        flows_too = sa.inspect(connection).has_table("logbooks")
    if flows_too:
        books = FlowBooks(database.writer)
        for operation_id in books.ids():
            books.drop(operation_id)
