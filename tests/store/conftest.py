"""Each test of the store runs on each kind of database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from databases import database, database_url, mariadb_server, postgresql_server, server_kind
from stillframe.store import schema
from stillframe.store.operations import OperationStore
from stillframe.store.snapshots import SnapshotStore

if TYPE_CHECKING:
    from stillframe.store.database import Database

__all__ = ["Store", "database", "database_url", "mariadb_server", "postgresql_server", "server_kind", "store"]


@dataclass(frozen=True, slots=True)
class Store:
    """A database at this release's schema, and all that works on it."""

    database: Database
    snapshots: SnapshotStore
    operations: OperationStore


@pytest.fixture
def store(database: Database) -> Store:  # a fixture asks for another by its name
    schema.upgrade(database)
    return Store(database, SnapshotStore(database), OperationStore(database))
