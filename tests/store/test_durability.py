"""What outlives a loss of power on SQLite: what somebody was told, and all that was recorded before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stillframe.store.database import connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import sqlalchemy as sa

    from stillframe.store.database import Database

#: https://www.sqlite.org/pragma.html#pragma_synchronous
OFF, NORMAL, FULL = range(3)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = connect(f"sqlite:///{tmp_path}/store.db")
    yield opened
    opened.close()


def synchronous(connection: sa.Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())


def test_a_transaction_waits_for_the_disk_unless_it_says_that_it_need_not(database: Database) -> None:
    for durable in (True, False, False, True):
        with database.writing(durable=durable) as connection:
            assert synchronous(connection) == (FULL if durable else NORMAL)


def test_flow_books_do_not_wait_for_the_disk(database: Database) -> None:
    with database.books.begin() as connection:
        assert synchronous(connection) == NORMAL
    with database.writing() as connection:
        assert synchronous(connection) == FULL


def test_a_database_that_was_asked_to_be_less_careful_stays_so(tmp_path: Path) -> None:
    opened = connect(f"sqlite:///{tmp_path}/store.db", sqlite_synchronous="OFF")
    for durable in (True, False):
        with opened.writing(durable=durable) as connection:
            assert synchronous(connection) == OFF
    opened.close()
