"""The schema goes up and down on every database, says where it is, and is what the tables in the code say."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

import stillframe.store
from stillframe.domain.errors import InvalidInput, Refused, Unavailable
from stillframe.domain.operation import OperationState
from stillframe.engine.persistence import FlowBooks
from stillframe.main import upgrade_database
from stillframe.store import schema
from stillframe.store.database import connect
from stillframe.store.operations import OperationStore
from stillframe.store.rows import operation_to_row
from stillframe.store.tables import METADATA
from tests.store.samples import available, sample_operation

if TYPE_CHECKING:
    from stillframe.store.database import Database

FLOW_TABLES = {"logbooks", "flowdetails", "atomdetails"}
VERSIONS = sa.table(schema.VERSION_TABLE, sa.column("version_num"))


def tables(database: Database) -> set[str]:
    with database.reader.connect() as connection:
        return set(sa.inspect(connection).get_table_names())


def migrate(database: Database, way: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(stillframe.store.__file__).parent / "migrations"))
    with database.writer.connect() as connection:
        config.attributes["connection"] = connection
        getattr(command, way)(config, revision)
        connection.commit()


def downgrade(database: Database) -> None:
    migrate(database, "downgrade", "base")


def differences(database: Database) -> list[object]:
    options = {
        "version_table": schema.VERSION_TABLE,
        "compare_type": True,
        "compare_server_default": True,
        "include_name": lambda name, kind, _parents: kind != "table" or name in METADATA.tables,
    }
    with database.reader.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), METADATA))


def test_an_empty_database_has_no_revision(database: Database) -> None:
    assert schema.current(database) is None
    assert tables(database) == set()


def test_migrations_go_up_and_down_and_up_again(database: Database) -> None:
    schema.upgrade(database)
    assert schema.current(database) == schema.head()
    assert tables(database) >= set(METADATA.tables)
    downgrade(database)
    assert schema.current(database) is None
    assert tables(database) == {schema.VERSION_TABLE}
    schema.upgrade(database)
    assert schema.current(database) == schema.head()
    assert available(OperationStore(database)).snapshot_id


def test_upgrading_again_changes_nothing(database: Database) -> None:
    schema.upgrade(database)
    operations = OperationStore(database)
    kept = available(operations)
    schema.upgrade(database)
    assert operations.get(kept.id).id == kept.id


def test_the_migrations_make_the_tables_that_the_code_names(database: Database) -> None:
    schema.upgrade(database)
    assert differences(database) == []


@pytest.mark.parametrize("ours_first", [True, False])
def test_the_flow_engines_tables_and_ours_leave_each_other_alone(database: Database, *, ours_first: bool) -> None:
    books = FlowBooks(database.writer)
    steps = [lambda: schema.upgrade(database), books.upgrade]
    for step in steps if ours_first else reversed(steps):
        step()
    assert tables(database) >= {*METADATA.tables, *FLOW_TABLES}
    assert schema.current(database) == schema.head()
    assert differences(database) == []
    books.open("an-operation", "AFlow")
    schema.upgrade(database)
    books.upgrade()
    assert books.ids() == ["an-operation"]
    downgrade(database)
    assert tables(database) >= FLOW_TABLES
    assert books.ids() == ["an-operation"]


def test_a_migration_that_was_cut_off_is_finished_by_the_next_one(database: Database) -> None:
    schema.upgrade(database)
    with database.writer.begin() as connection:
        connection.execute(sa.delete(VERSIONS))
        connection.execute(sa.text("DROP TABLE operations"))
    schema.upgrade(database)
    assert schema.current(database) == schema.head()
    assert differences(database) == []


def test_a_database_of_a_later_release_is_refused(database: Database) -> None:
    schema.upgrade(database)
    with database.writer.begin() as connection:
        connection.execute(sa.update(VERSIONS).values(version_num="9999"))
    assert schema.current(database) == "9999"
    with pytest.raises(Refused, match="9999"):
        schema.upgrade(database)


def test_a_database_of_a_later_release_can_be_worked_with(database: Database) -> None:
    assert not schema.fits(database)
    schema.upgrade(database)
    assert schema.fits(database)
    for version, fits in (("9999", True), ("0001", False)):
        with database.writer.begin() as connection:
            connection.execute(sa.update(VERSIONS).values(version_num=version))
        assert schema.fits(database) is fits


STEPS = list(itertools.pairwise(["0001", "0002", "0003", "0004", "0005", "0006", "0007"]))


def test_every_migration_is_a_step(database: Database) -> None:
    schema.upgrade(database)
    assert STEPS[-1][1] == schema.head()


@pytest.mark.parametrize("before", [before for before, _ in STEPS])
def test_what_an_older_release_writes_and_reads_fits_the_newer_schema(database: Database, before: str) -> None:
    migrate(database, "upgrade", before)
    old = sa.MetaData()
    with database.writer.connect() as connection:
        old.reflect(connection)
    migrate(database, "upgrade", "head")
    operation = operation_to_row(sample_operation())
    columns = old.tables["operations"].c
    # MariaDB has no type of its own for JSON: there it is text.
    values = {
        name: json.dumps(value)
        if isinstance(value, dict | list) and not isinstance(columns[name].type, sa.JSON)
        else value
        for name, value in operation.items()
        if name in columns
    }
    with database.writer.begin() as connection:
        connection.execute(sa.insert(old.tables["operations"]).values(**values))
        changed = sa.update(old.tables["operations"]).values(state="running", attempts=1)
        assert connection.execute(changed).rowcount == 1
        for table in old.tables.values():
            connection.execute(sa.select(table)).all()
    read = OperationStore(database).get(operation["id"])
    assert (read.state, read.attempts, read.generation, read.limit_keys) == (OperationState.RUNNING, 1, 0, ())


def test_text_is_compared_by_code_points_whatever_the_servers_default_is(database: Database, server_kind: str) -> None:
    schema.upgrade(database)
    if server_kind == "sqlite":
        return
    collation = sa.text(
        "SELECT DISTINCT collation_name FROM information_schema.columns WHERE table_name IN "
        "('instance_snapshots', 'operations', 'instance_locks', 'fences') "
        "AND (table_schema = :schema) AND data_type IN ('varchar', 'character varying')"
    )
    with database.reader.connect() as connection:
        name = "public" if server_kind == "postgresql" else str(database.reader.url.database)
        found = set(connection.execute(collation, {"schema": name}).scalars())
    assert found == {"C" if server_kind == "postgresql" else "utf8mb4_nopad_bin"}


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "nonsense", "oracle-of-delphi://here/there"])
def test_a_url_that_cannot_be_used_is_bad_input(url: str) -> None:
    with pytest.raises(InvalidInput):
        connect(url)


@pytest.mark.parametrize("after", [0.0, 0.01, 0.02, 0.05, 0.1])
def test_an_upgrade_that_is_killed_is_finished_by_the_next_one(database: Database, after: float) -> None:
    child = os.fork()
    if child == 0:
        try:
            schema.upgrade(connect(database.writer.url.render_as_string(hide_password=False)))
        finally:
            os._exit(0)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    schema.upgrade(database)
    assert schema.current(database) == schema.head()
    assert differences(database) == []


def test_upgrades_at_a_time_wait_for_each_other(database: Database, server_kind: str) -> None:
    if server_kind == "sqlite":
        pytest.skip("a file is upgraded by the one process that works on it")
    url = database.writer.url.render_as_string(hide_password=False)
    opened = [connect(url) for _ in range(4)]
    with ThreadPoolExecutor(len(opened)) as pool:
        list(pool.map(upgrade_database, opened))
    for one in opened:
        one.close()
    assert schema.current(database) == schema.head()
    assert differences(database) == []


def test_tables_that_are_in_use_are_not_waited_for_without_end(database: Database, server_kind: str) -> None:
    if server_kind == "sqlite":
        pytest.skip("a file is upgraded by the one process that works on it")
    migrate(database, "upgrade", "0001")
    with database.writer.begin() as sleeper:
        sleeper.exec_driver_sql("SELECT * FROM operations").all()
        with pytest.raises(Unavailable, match="repeat the upgrade"):
            schema.upgrade(database)
    schema.upgrade(database)
    assert differences(database) == []
