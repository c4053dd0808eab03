"""What the database raises leaves the store as an error of our tree, and a database that comes back is used again."""

from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from stillframe.domain.arguments import Action
from stillframe.domain.errors import Conflict, Damaged, InvalidInput, StillframeError, Unavailable
from stillframe.domain.operation import FlowRecord, Settlement
from stillframe.domain.status import Event, Status
from stillframe.engine.persistence import FlowBooks
from stillframe.store import schema
from stillframe.store.database import Database, connect
from stillframe.store.error_translation import repeated
from stillframe.store.operations import OperationStore
from stillframe.store.snapshots import ListQuery, SnapshotStore
from stillframe.store.tables import FENCES, OPERATIONS, SNAPSHOTS
from tests.store.samples import LATER, available, creating, following, new_id, sample_operation, sample_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.databases import Server
    from tests.store.conftest import Store

SERVERS = pytest.mark.parametrize("server_kind", ["postgresql", "mariadb"], indirect=True)
SQLITE = pytest.mark.parametrize("server_kind", ["sqlite"], indirect=True)


def every_call(store: Store) -> dict[str, Callable[[], object]]:
    """Each method of the stores, called as if all were well."""
    queue = store.queue
    operations, snapshots, books = store.operations, store.snapshots, FlowBooks(store.database.writer)
    operation = sample_operation()
    settlement = Settlement(Event.CREATED, succeeded=True)
    return {
        "begin_create": lambda: operations.begin_create(sample_snapshot(operation), operation),
        "begin": lambda: operations.begin(
            following(operation, Action.DELETE), Event.DELETE, Status.AVAILABLE, fence=False
        ),
        "get": lambda: operations.get(operation.id),
        "unfinished": operations.unfinished,
        "overdue": lambda: operations.overdue(LATER),
        "take": lambda: queue.take("worker", 1, 30),
        "claim": lambda: queue.claim(operation.id, "worker", 30),
        "renew": lambda: queue.renew([operation], 30),
        "put_back": lambda: queue.put_back(operation),
        "put_all_back": queue.put_all_back,
        "holds": lambda: queue.holds(operation),
        "waiting": queue.waiting,
        "position": lambda: queue.position(operation),
        "open_among": lambda: queue.open_among([operation.id]),
        "raise_progress": lambda: operations.raise_progress(operation, 1),
        "commit": lambda: operations.commit(operation, {}),
        "finish": lambda: operations.finish(operation, settlement, LATER),
        "keep_record": lambda: operations.keep_record(operation.id, FlowRecord({}, {}, {})),
        "free_settled": operations.free_settled,
        "forget_finished": lambda: operations.forget_finished(LATER),
        "fence": lambda: operations.fence("instance"),
        "make_durable": lambda: operations.make_durable(operation),
        "note_power": lambda: operations.note_power(operation, was_active=True),
        "open_by_action": operations.open_by_action,
        "last_failures": lambda: operations.last_failures(LATER),
        "snapshot": lambda: snapshots.get(operation.snapshot_id),
        "ids": snapshots.ids,
        "list": lambda: snapshots.list(ListQuery("project", 1)),
        "rename": lambda: snapshots.rename(operation.snapshot_id, {"name": "x"}, LATER),
        "schema.current": lambda: schema.current(store.database),
        "schema.upgrade": lambda: schema.upgrade(store.database),
        "books.open": lambda: books.open(operation.id, "AFlow"),
        "books.read": lambda: books.read(operation.id),
        "books.ids": books.ids,
        "books.drop": lambda: books.drop(operation.id),
        "books.upgrade": books.upgrade,
    }


def errors_of(calls: dict[str, Callable[[], object]]) -> dict[str, type[BaseException] | None]:
    """What each call raises."""
    found: dict[str, type[BaseException] | None] = {}
    for name, call in calls.items():
        try:
            call()
        except Exception as error:  # noqa: BLE001  # which it is, is the question
            found[name] = type(error)
        else:
            found[name] = None
    return found


@pytest.fixture
def server(request: pytest.FixtureRequest, server_kind: str) -> Server:
    running: Server = request.getfixturevalue(f"{server_kind}_server")
    return running


@SERVERS
def test_a_server_that_stopped_is_unavailable_and_one_that_came_back_is_used_again(
    store: Store, server: Server
) -> None:
    kept = available(store.operations)
    FlowBooks(store.database.writer).upgrade()
    calls = every_call(store)
    server.stop()
    try:
        assert errors_of(calls) == dict.fromkeys(calls, Unavailable)
        with pytest.raises(Unavailable) as raised:
            store.snapshots.get(kept.snapshot_id)
        assert raised.value.__cause__ is None
        assert raised.value.detail
        assert "127.0.0.1" not in str(raised.value)
        assert "SELECT" not in str(raised.value)
    finally:
        server.start()
    assert store.snapshots.get(kept.snapshot_id).status is Status.AVAILABLE
    assert store.operations.unfinished() == []
    assert creating(store.operations).id


@SERVERS
def test_a_server_that_was_down_between_two_requests_is_not_noticed(store: Store, server: Server) -> None:
    kept = available(store.operations)
    server.stop()
    server.start()
    assert store.snapshots.get(kept.snapshot_id).status is Status.AVAILABLE
    assert creating(store.operations).id


@SERVERS
def test_a_connection_that_is_lost_in_the_middle_leaves_nothing_behind(store: Store, server_kind: str) -> None:
    ask, end = {
        "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
        "mariadb": ("SELECT CONNECTION_ID()", "KILL {}"),
    }[server_kind]
    operation = available(store.operations)
    renamed = sa.update(SNAPSHOTS).where(SNAPSHOTS.c.id == operation.snapshot_id).values(name="half")

    def lose() -> None:
        with store.database.writing() as connection:
            number = connection.exec_driver_sql(ask).scalar_one()
            connection.execute(renamed)
            with store.database.writer.connect() as other:
                other.exec_driver_sql(end.format(number))
                other.commit()
            time.sleep(0.05)
            connection.execute(sa.select(SNAPSHOTS)).all()

    with pytest.raises(Unavailable):
        lose()
    assert store.snapshots.get(operation.snapshot_id).name != "half"
    store.snapshots.rename(operation.snapshot_id, {"name": "whole"}, LATER)
    assert store.snapshots.get(operation.snapshot_id).name == "whole"


@SERVERS
def test_a_server_that_nobody_runs_is_unavailable(database_url: sa.URL) -> None:
    nowhere = connect(database_url.set(port=1).render_as_string(hide_password=False))
    with pytest.raises(Unavailable):
        schema.current(nowhere)
    with pytest.raises(Unavailable):
        schema.upgrade(nowhere)
    nowhere.close()


@SERVERS
def test_two_transactions_that_wait_for_each_other_both_get_through(store: Store) -> None:
    names = ("one", "other")
    with store.database.writing() as connection:
        connection.execute(sa.insert(FENCES), [{"instance_id": name, "snapshot_id": "s"} for name in names])
    meet, tries = threading.Barrier(2), []

    @repeated
    def both(first: str, second: str) -> None:
        tries.append(first)
        with store.database.writing() as connection:
            connection.execute(sa.update(FENCES).where(FENCES.c.instance_id == first).values(snapshot_id=first))
            if tries.count(first) == 1:
                meet.wait(60)
            connection.execute(sa.update(FENCES).where(FENCES.c.instance_id == second).values(was_active=True))

    with ThreadPoolExecutor(2) as pool:
        for ended in (pool.submit(both, *names), pool.submit(both, *reversed(names))):
            ended.result(60)
    assert len(tries) > 2
    for name in names:
        fence = store.operations.fence(name)
        assert fence is not None
        assert (fence.snapshot_id, fence.was_active) == (name, True)


@SERVERS
def test_a_row_that_stays_locked_too_long_is_a_conflict(store: Store, server_kind: str) -> None:
    operation = available(store.operations)
    patience = {"postgresql": "SET lock_timeout = '100ms'", "mariadb": "SET innodb_lock_wait_timeout = 1"}[server_kind]
    change = sa.update(SNAPSHOTS).where(SNAPSHOTS.c.id == operation.snapshot_id).values(name="x")

    def wait_for_it() -> None:
        with store.database.writing() as connection:
            connection.exec_driver_sql(patience)
            connection.execute(change)

    with store.database.writing() as holder:
        holder.execute(change)
        with pytest.raises(Conflict):
            wait_for_it()


def test_a_database_without_our_tables_is_our_error_not_an_outage(database: Database) -> None:
    empty = SnapshotStore(database)
    with pytest.raises(StillframeError) as raised:
        empty.get(new_id())
    assert type(raised.value) is StillframeError
    assert "schema" in str(raised.value)


def test_a_row_that_is_there_already_is_a_conflict(store: Store) -> None:
    operation = available(store.operations)
    again = sample_operation(instance_id="another", snapshot_id=operation.snapshot_id)
    with pytest.raises(Conflict):
        store.operations.begin_create(sample_snapshot(again), again)
    assert creating(store.operations, instance_id="another").id


@SERVERS
def test_a_value_that_does_not_fit_its_column_is_bad_input_and_never_cut(store: Store, server_kind: str) -> None:
    if server_kind == "mariadb":
        with store.database.reader.connect() as connection:
            mode = connection.exec_driver_sql("SELECT @@SESSION.sql_mode").scalar_one()
            assert "STRICT_ALL_TABLES" in mode
    operation = available(store.operations)

    def overfill(**values: Any) -> None:
        with store.database.writing() as connection:
            connection.execute(sa.update(SNAPSHOTS).where(SNAPSHOTS.c.id == operation.snapshot_id).values(**values))

    with pytest.raises(InvalidInput):
        overfill(name="x" * 256)
    with pytest.raises(InvalidInput):
        overfill(status="y" * 33)


def test_a_statement_that_is_wrong_is_our_error(store: Store) -> None:
    def wrong(statement: str) -> None:
        with store.database.reading() as connection:
            connection.execute(sa.text(statement))

    for statement in ("SELECT FROM WHERE", "SELECT * FROM instance_snapshots WHERE nothing = 1"):
        with pytest.raises(StillframeError) as raised:
            wrong(statement)
        assert not isinstance(raised.value, Unavailable)
        assert statement not in str(raised.value)


def test_errors_of_our_tree_are_not_translated_and_undo_the_transaction(store: Store) -> None:
    operation = available(store.operations)
    mine = Conflict("mine")

    def stumble() -> None:
        with store.database.writing() as connection:
            connection.execute(sa.delete(OPERATIONS))
            raise mine

    with pytest.raises(Conflict) as raised:
        stumble()
    assert raised.value is mine
    assert store.operations.get(operation.id).id == operation.id


@SERVERS
def test_more_requests_than_connections_wait_in_line_and_then_are_told(database_url: sa.URL) -> None:
    url = database_url.render_as_string(hide_password=False)
    narrow = connect(url, pool_size=1)
    narrow.writer.pool._timeout = 0.2  # type: ignore[attr-defined]  # noqa: SLF001  # nobody wants to wait half a minute
    with narrow.reading(), narrow.reading(), pytest.raises(Unavailable), narrow.reading():
        pass
    assert schema.current(narrow) is None
    narrow.close()


@SQLITE
def test_an_sqlite_file_that_another_process_writes_to_for_too_long_is_unavailable(store: Store) -> None:
    operation = available(store.operations)
    with store.database.writer.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=50")
    other = sqlite3.connect(str(store.database.writer.url.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable):
        store.snapshots.rename(operation.snapshot_id, {"name": "x"}, LATER)
    assert store.snapshots.get(operation.snapshot_id).name != "x"
    other.execute("ROLLBACK")
    other.close()
    store.snapshots.rename(operation.snapshot_id, {"name": "x"}, LATER)
    assert store.snapshots.get(operation.snapshot_id).name == "x"


def test_an_sqlite_file_that_is_none_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "stillframe.sqlite"
    path.write_bytes(b"this was a database once" * 500)
    with pytest.raises(Damaged):
        schema.upgrade(connect(f"sqlite:///{path}"))


def test_an_sqlite_file_that_cannot_be_opened_any_more_is_unavailable(tmp_path: Path) -> None:
    file = tmp_path / "stillframe.sqlite"
    database = connect(f"sqlite:///{file}")
    file.unlink(missing_ok=True)
    file.mkdir()
    with pytest.raises(Unavailable):
        schema.current(database)


def test_a_folder_in_the_place_of_an_sqlite_file_is_bad_input(tmp_path: Path) -> None:
    file = tmp_path / "stillframe.sqlite"
    file.mkdir()
    with pytest.raises(InvalidInput, match="Is a directory"):
        connect(f"sqlite:///{file}")


def test_an_sqlite_folder_that_cannot_be_made_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput):
        connect(f"sqlite:///{tmp_path / 'file' / 'stillframe.sqlite'}")


@SQLITE
def test_readers_are_not_held_up_by_a_writer_and_see_only_what_is_committed(store: Store) -> None:
    operation = available(store.operations)
    with store.database.writing() as connection:
        connection.execute(sa.update(SNAPSHOTS).values(name="not yet"))
        assert store.snapshots.get(operation.snapshot_id).name != "not yet"
    assert store.snapshots.get(operation.snapshot_id).name == "not yet"


def test_a_store_that_was_opened_anew_has_everything(store: Store) -> None:
    operation = available(store.operations, created_at=LATER - timedelta(microseconds=1))
    again = connect(store.database.writer.url.render_as_string(hide_password=False))
    assert SnapshotStore(again).get(operation.snapshot_id) == store.snapshots.get(operation.snapshot_id)
    assert OperationStore(again).get(operation.id) == store.operations.get(operation.id)
    again.close()
