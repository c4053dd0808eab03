"""One process at a time works on a server's operations, and the lock goes with whoever held it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from stillframe.domain.errors import Conflict, Unavailable
from stillframe.store.database import connect
from stillframe.store.worker_lock import WorkerLock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stillframe.store.database import Database

SERVERS = pytest.mark.parametrize("server_kind", ["postgresql", "mariadb"], indirect=True)


@pytest.fixture
def other(database_url: sa.URL) -> Iterator[Database]:
    """The same database, as another process would open it."""
    opened = connect(database_url.render_as_string(hide_password=False))
    yield opened
    opened.close()


@SERVERS
def test_only_one_at_a_time_holds_the_lock(database: Database, other: Database) -> None:
    first, second = WorkerLock(database.writer), WorkerLock(other.writer)
    first.take()
    with pytest.raises(Conflict):
        second.take()
    first.check()
    first.release()
    second.take()
    with pytest.raises(Unavailable):
        first.check()
    second.release()


@SERVERS
def test_locks_of_different_databases_do_not_meet(
    database: Database, request: pytest.FixtureRequest, server_kind: str
) -> None:
    elsewhere = connect(
        request.getfixturevalue(f"{server_kind}_server").create_database().render_as_string(hide_password=False)
    )
    first, second = WorkerLock(database.writer), WorkerLock(elsewhere.writer)
    first.take()
    second.take()
    first.release()
    second.release()
    elsewhere.close()


@SERVERS
def test_a_lock_whose_connection_the_server_ended_is_known_to_be_lost(
    database: Database, other: Database, server_kind: str
) -> None:
    first, second = WorkerLock(database.writer, look_every=0), WorkerLock(other.writer)
    first.take()
    first.check()
    end = {
        "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'",
        "mariadb": "EXECUTE IMMEDIATE CONCAT('KILL ', IS_USED_LOCK(CONCAT('stillframe-', MD5(DATABASE()))))",
    }[server_kind]
    with other.writer.connect() as connection:
        connection.execute(sa.text(end))
    time.sleep(0.1)
    with pytest.raises(Unavailable):
        first.check()
    second.take()
    with pytest.raises(Unavailable):
        first.check()
    second.release()
    first.release()
