"""A service over a world in memory, which is not put back when its database is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stillframe import main
from stillframe.store.database import connect
from tests.databases import database_url, mariadb_server, postgresql_server, server_kind
from tests.harness.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import sqlalchemy as sa

__all__ = ["database_url", "mariadb_server", "postgresql_server", "server_kind"]


@pytest.fixture
def world(tmp_path: Path, database_url: sa.URL) -> Iterator[World]:
    database = connect(database_url.render_as_string(hide_password=False))
    main.upgrade_database(database)
    database.close()
    world = World(tmp_path, database_url, claim_seconds=2.0)
    yield world
    world.stop()
