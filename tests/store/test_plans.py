"""Lists stay cheap with many rows: a page reads a page."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from stillframe.store.snapshots import ListQuery, Sort
from tests.store.plenty import snapshots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.store.conftest import Store

ROWS = 10_000
OLDEST_FIRST = (Sort("created_at", descending=False),)


@pytest.fixture
def plentiful(store: Store) -> Store:
    snapshots(store.database, ROWS, projects=5)
    return store


def watched(store: Store, query: ListQuery) -> tuple[str, Any]:
    """The last statement of a list, with its parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        seen.append((statement, parameters))

    sa.event.listen(store.database.reader, "before_cursor_execute", note)
    assert len(store.snapshots.list(query)) == query.limit
    sa.event.remove(store.database.reader, "before_cursor_execute", note)
    return seen[-1]


def plan(store: Store, query: ListQuery) -> str:
    statement, parameters = watched(store, query)
    explain = "EXPLAIN QUERY PLAN" if store.database.reader.dialect.name == "sqlite" else "EXPLAIN"
    with store.database.reader.connect() as connection:
        rows = connection.exec_driver_sql(f"{explain} {statement}", parameters).all()
    return "\n".join(" ".join(map(str, row)) for row in rows)


def queries(store: Store) -> Iterator[ListQuery]:
    """The default order and its reverse, first page and a middle one, for a project and for all."""
    for project_id in ("p1", None):
        for sort in ((Sort("created_at"),), OLDEST_FIRST):
            first = ListQuery(project_id, 100, sort=sort)
            yield first
            page = store.snapshots.list(ListQuery(project_id, 1000, sort=sort))
            yield ListQuery(project_id, 100, marker=page[-1].id, sort=sort)


@pytest.mark.parametrize("server_kind", ["sqlite"], indirect=True)
def test_the_default_order_is_read_from_an_index_on_sqlite(plentiful: Store) -> None:
    for query in queries(plentiful):
        found = plan(plentiful, query)
        assert "USING INDEX ix_instance_snapshots_" in found, found
        assert "TEMP B-TREE" not in found, found
        if query.project_id is not None:
            assert re.search(r"ix_instance_snapshots_project_id_sequence_id \(project_id=\?", found), found


@pytest.mark.parametrize("server_kind", ["postgresql"], indirect=True)
def test_the_default_order_is_read_from_an_index_on_postgresql(plentiful: Store) -> None:
    with plentiful.database.writer.begin() as connection:
        connection.execute(sa.text("ANALYZE"))
    for query in queries(plentiful):
        found = plan(plentiful, query)
        assert "ix_instance_snapshots_" in found, found
        assert "Sort" not in found, found


@pytest.mark.parametrize("server_kind", ["mariadb"], indirect=True)
def test_the_default_order_is_read_from_an_index_on_mariadb(plentiful: Store) -> None:
    with plentiful.database.writer.begin() as connection:
        connection.execute(sa.text("ANALYZE TABLE instance_snapshots"))
    for query in queries(plentiful):
        found = plan(plentiful, query)
        assert "ix_instance_snapshots_" in found, found
        assert "filesort" not in found, found


def test_the_last_page_costs_no_more_than_the_first(plentiful: Store) -> None:
    def cost(query: ListQuery) -> float:
        times = []
        for _ in range(5):
            before = time.perf_counter()
            plentiful.snapshots.list(query)
            times.append(time.perf_counter() - before)
        return min(times)

    marker = plentiful.snapshots.list(ListQuery("p1", 101, sort=OLDEST_FIRST))[-1].id
    first, last = cost(ListQuery("p1", 100)), cost(ListQuery("p1", 100, marker=marker))
    assert last < 4 * first + 0.02
