"""Lists: every row exactly once whatever the order, filters, and markers that are somebody else's."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from stillframe.domain.errors import InvalidInput
from stillframe.domain.operation import Settlement
from stillframe.domain.status import Event, Status
from stillframe.store.queue import OperationQueue
from stillframe.store.snapshots import SORT_KEYS, ListQuery, Sort
from stillframe.store.tables import SNAPSHOTS, UNNUMBERED
from tests.store.samples import FAULT, LATER, NOON, available, creating, new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stillframe.domain.snapshot import InstanceSnapshot
    from tests.store.conftest import Store

ROWS = 23


def fill(store: Store, rows: int = ROWS, project_id: str = "project") -> None:
    """Rows of which many are equal in every key but their id."""
    chance = random.Random(7)
    for _ in range(rows):
        operation = creating(
            store.operations,
            id=new_id(),
            project_id=project_id,
            instance_id=f"i{chance.randrange(3)}-{new_id()}" if chance.random() < 0.2 else new_id(),
            name=chance.choice(["a", "A", "b", "ä"]),
            created_at=NOON + timedelta(microseconds=chance.randrange(3)),
        )
        moment = NOON + timedelta(microseconds=chance.randrange(3))
        if ended := chance.random() < 0.6:
            settlement = chance.choice(
                [
                    Settlement(Event.CREATED, succeeded=True),
                    Settlement(Event.CREATE_FAILED, succeeded=False, fault=FAULT),
                ]
            )
            store.operations.finish(operation, settlement, moment)
        if ended and chance.random() < 0.3:
            store.snapshots.rename(operation.snapshot_id, {"description": "renamed"}, moment)


def walk(
    store: Store,
    limit: int,
    sort: Sequence[Sort],
    project_id: str | None = "project",
    between: Callable[[], object] = lambda: None,
) -> Iterator[InstanceSnapshot]:
    marker = None
    while page := store.snapshots.list(ListQuery(project_id, limit, marker=marker, sort=sort)):
        yield from page
        marker = page[-1].id
        between()


def key_of(snapshot: InstanceSnapshot, key: str) -> str:
    value = getattr(snapshot, key)
    return str(value if value is not None else snapshot.created_at)


def numbered(store: Store) -> dict[str, int]:
    """The order in which the rows came to be, by their ids."""
    with store.database.reader.connect() as connection:
        return dict(connection.execute(sa.select(SNAPSHOTS.c.id, SNAPSHOTS.c.sequence)).tuples().all())


def orders() -> Iterator[tuple[Sort, ...]]:
    directions = (True, False)
    for key, down in itertools.product(SORT_KEYS, directions):
        yield (Sort(key, down),)
    for (one, other), down, other_down in itertools.product(
        itertools.permutations(["name", "status", "updated_at", "created_at"], 2), directions, directions
    ):
        yield (Sort(one, down), Sort(other, other_down))
    yield (Sort("status"), Sort("name", descending=False), Sort("created_at"), Sort("id", descending=False))
    yield ()


def test_pages_in_every_order_hold_every_row_exactly_once(store: Store) -> None:
    fill(store)
    fill(store, 3, "another")
    everything = {snapshot.id for snapshot in store.snapshots.list(ListQuery("project", 1000))}
    assert len(everything) == ROWS
    numbers = numbered(store)

    def keys_of(snapshot: InstanceSnapshot, sort: tuple[Sort, ...]) -> tuple[object, ...]:
        return tuple(numbers[snapshot.id] if one.key == "created_at" else key_of(snapshot, one.key) for one in sort)

    for sort in orders():
        seen = list(walk(store, 4, sort))
        assert Counter(snapshot.id for snapshot in seen) == Counter(everything), sort
        expected = sorted(seen, key=lambda snapshot: snapshot.id)
        for item in reversed(sort):
            expected.sort(key=lambda snapshot, item=item: keys_of(snapshot, (item,)), reverse=item.descending)  # type: ignore[misc]
        assert [keys_of(one, sort) for one in seen] == [keys_of(one, sort) for one in expected], sort


def test_the_newest_come_first_although_the_clock_was_set_back(store: Store) -> None:
    moments = [NOON, NOON + timedelta(hours=1), NOON, NOON - timedelta(days=1), NOON]
    made = [creating(store.operations, instance_id=new_id(), created_at=moment).snapshot_id for moment in moments]
    assert [one.id for one in store.snapshots.list(ListQuery("project", 10))] == made[::-1]
    assert [one.id for one in walk(store, 2, (Sort("created_at"),))] == made[::-1]
    assert [one.id for one in walk(store, 1, (Sort("created_at", descending=False),))] == made
    assert [one.snapshot_id for one in store.operations.unfinished()] == made
    taken = [OperationQueue(store.database).take("worker", 1, 30)[0].snapshot_id for _ in made]
    assert taken == made


def test_what_the_release_before_writes_is_the_newest_until_it_is_numbered(store: Store) -> None:
    first = creating(store.operations, instance_id=new_id()).snapshot_id
    old = creating(store.operations, instance_id=new_id()).snapshot_id
    with store.database.writer.begin() as connection:
        connection.execute(sa.update(SNAPSHOTS).where(SNAPSHOTS.c.id == old).values(sequence=UNNUMBERED))
    assert [one.id for one in store.snapshots.list(ListQuery("project", 10))] == [old, first]
    last = creating(store.operations, instance_id=new_id()).snapshot_id
    assert [one.id for one in store.snapshots.list(ListQuery("project", 10))] == [last, old, first]
    assert numbered(store) == {first: 1, old: 2, last: 3}


def test_no_change_lies_before_the_creation(store: Store) -> None:
    earlier = NOON - timedelta(hours=1)
    operation = creating(store.operations)
    store.operations.finish(operation, Settlement(Event.CREATE_FAILED, succeeded=False, fault=FAULT), earlier)
    assert store.snapshots.get(operation.snapshot_id).updated_at == NOON
    store.snapshots.rename(operation.snapshot_id, {"name": "x"}, earlier)
    assert store.snapshots.get(operation.snapshot_id).updated_at == NOON
    store.snapshots.rename(operation.snapshot_id, {"name": "y"}, LATER)
    assert store.snapshots.get(operation.snapshot_id).updated_at == LATER


@pytest.mark.parametrize("limit", [1, 2, ROWS - 1, ROWS, ROWS + 1])
def test_pages_of_every_size_hold_every_row_exactly_once(store: Store, limit: int) -> None:
    fill(store)
    seen = [snapshot.id for snapshot in walk(store, limit, (Sort("status"),))]
    assert len(seen) == len(set(seen)) == ROWS


def test_rows_that_come_in_between_take_no_place_from_the_others(store: Store) -> None:
    fill(store)
    before = {snapshot.id for snapshot in store.snapshots.list(ListQuery("project", 1000))}
    for sort in ((Sort("created_at"),), (Sort("name", descending=False),), (Sort("updated_at"), Sort("status"))):
        seen = Counter(snapshot.id for snapshot in walk(store, 3, sort, between=lambda: fill(store, 1)) if snapshot)
        assert {snapshot_id: seen[snapshot_id] for snapshot_id in before} == dict.fromkeys(before, 1)
        assert max(seen.values()) == 1


def test_the_newest_come_first_without_a_word(store: Store) -> None:
    made = [
        creating(store.operations, instance_id=f"i{n}", created_at=NOON + timedelta(seconds=n)).snapshot_id
        for n in range(5)
    ]
    assert [snapshot.id for snapshot in store.snapshots.list(ListQuery("project", 1000))] == made[::-1]


def test_all_projects_are_listed_without_a_project(store: Store) -> None:
    fill(store, 4, "one")
    fill(store, 3, "other")
    assert len(list(walk(store, 2, (Sort("created_at"),), project_id=None))) == 7
    assert len(list(walk(store, 2, (Sort("created_at"),), project_id="one"))) == 4
    assert list(walk(store, 2, (Sort("created_at"),), project_id="third")) == []


def test_filters_work_together_and_with_pages(store: Store) -> None:
    for number in range(6):
        available(store.operations, instance_id="one", name="x" if number % 2 else "y")
    creating(store.operations, instance_id="one", name="x")
    available(store.operations, instance_id="other", name="x")
    filters = {"status": Status.AVAILABLE.value, "instance_id": "one", "name": "x"}
    first = store.snapshots.list(ListQuery("project", 2, filters=filters))
    rest = store.snapshots.list(ListQuery("project", 2, marker=first[-1].id, filters=filters))
    assert len(first) == 2
    assert len(rest) == 1
    assert {snapshot.name for snapshot in first + rest} == {"x"}
    assert len({snapshot.id for snapshot in first + rest}) == 3


def test_a_limit_of_nothing_is_an_empty_page(store: Store) -> None:
    fill(store, 2)
    assert store.snapshots.list(ListQuery("project", 0)) == []


def test_a_marker_of_another_project_is_refused_like_one_that_never_was(store: Store) -> None:
    mine = creating(store.operations, instance_id="a").snapshot_id
    foreign = creating(store.operations, instance_id="b", project_id="another").snapshot_id
    messages = []
    for marker in (foreign, new_id()):
        with pytest.raises(InvalidInput) as refused:
            store.snapshots.list(ListQuery("project", 10, marker=marker))
        assert refused.value.path == "marker"
        messages.append(str(refused.value).replace(marker, "MARKER"))
    assert messages[0] == messages[1]
    assert [s.id for s in store.snapshots.list(ListQuery(None, 10, marker=foreign, sort=[Sort("created_at")]))] in (
        [mine],
        [],
    )
