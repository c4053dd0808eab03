"""What goes in comes out, and what is equal on one database is equal on all."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillframe.domain.arguments import Action, RestoreArguments
from stillframe.domain.errors import InvalidInput
from stillframe.domain.omission import Omission
from stillframe.domain.snapshot import Consistency, ConsistencyLevel, Fault
from stillframe.store.snapshots import FILTERS, ListQuery, Sort
from stillframe.store.tables import SNAPSHOTS
from tests.store.samples import LATER, NOON, available, creating, new_id, sample_operation, sample_snapshot

if TYPE_CHECKING:
    from tests.store.conftest import Store

TEXTS = [
    "",
    " ",
    "plain",
    "Plain",
    "plain ",
    " plain",
    "pläin",
    "plain\u0301",
    "straße",
    "strasse",
    "ﬁ",
    "fi",
    "İ",
    "快照",
    "👩‍🚀💾",
    "tab\tline\nend\r\n",
    "\\ % _ ' \" ; -- {} :name",
    "\u200b",
    "\ufeff",
    "\U0010ffff",
]

storable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=255)


def names(store: Store, **about: Any) -> list[str]:
    return [snapshot.name for snapshot in store.snapshots.list(ListQuery("project", 1000, **about))]


@pytest.fixture
def named(store: Store) -> Store:
    for number, name in enumerate(TEXTS):
        creating(store.operations, instance_id=f"i{number}", name=name)
    return store


def test_text_comes_out_as_it_went_in(named: Store) -> None:
    assert sorted(names(named)) == sorted(TEXTS)


def test_a_filter_finds_exactly_what_is_equal_to_the_letter(named: Store) -> None:
    for name in TEXTS:
        assert names(named, filters={"name": name}) == [name]
    for absent in ("PLAIN", "plain  ", "STRASSE", "plai%", "plai_", "👩"):
        assert names(named, filters={"name": absent}) == []


def test_names_are_sorted_by_code_points_on_every_database(named: Store) -> None:
    assert names(named, sort=[Sort("name", descending=False)]) == sorted(TEXTS)
    assert names(named, sort=[Sort("name", descending=True)]) == sorted(TEXTS, reverse=True)


def test_every_filter_minds_case_and_blanks_at_the_end(store: Store) -> None:
    available(store.operations, instance_id="Instance", name="Name")
    right = {"status": "available", "instance_id": "Instance", "name": "Name"}
    assert set(right) == set(FILTERS)
    for key, value in right.items():
        assert names(store, filters={key: value}) == ["Name"]
        for wrong in (value.upper(), value.lower().capitalize() + " ", value + " ", "x" * 300):
            assert names(store, filters={key: wrong}) == []


def test_ids_that_differ_in_case_or_blanks_are_different_ids(store: Store) -> None:
    for number, snapshot_id in enumerate(["a", "A", "a ", "ä"]):
        operation = sample_operation(id=snapshot_id, snapshot_id=snapshot_id, instance_id=f"i{number}")
        store.operations.begin_create(sample_snapshot(operation), operation)
    for snapshot_id in ("a", "A", "a ", "ä"):
        assert store.snapshots.get(snapshot_id).id == snapshot_id
        assert store.operations.get(snapshot_id).id == snapshot_id
    assert store.snapshots.ids() == {"a", "A", "a ", "ä"}


def test_instances_that_differ_in_case_or_blanks_do_not_hold_each_other_up(store: Store) -> None:
    for instance_id in ("vm", "VM", "vm ", "vḿ"):
        assert creating(store.operations, instance_id=instance_id).instance_id == instance_id


def test_projects_that_differ_in_case_do_not_see_each_other(store: Store) -> None:
    creating(store.operations, instance_id="a", project_id="Project")
    assert names(store) == []


@pytest.mark.parametrize("letter", ["x", "ß", "磁", "💥"])
def test_names_are_as_long_as_255_characters_of_any_kind(store: Store, letter: str) -> None:
    longest = letter * 255
    operation = creating(store.operations, name=longest, description=longest)
    snapshot = store.snapshots.get(operation.snapshot_id)
    assert (snapshot.name, snapshot.description) == (longest, longest)
    assert names(store, filters={"name": longest}) == [longest]
    with pytest.raises(InvalidInput) as refused:
        store.snapshots.rename(operation.snapshot_id, {"name": longest + letter}, LATER)
    assert refused.value.path == "name"
    assert store.snapshots.get(operation.snapshot_id) == snapshot


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_not_every_database_keeps_is_bad_input(store: Store, text: str) -> None:
    operation = available(store.operations)
    with pytest.raises(InvalidInput):
        store.snapshots.rename(operation.snapshot_id, {"name": text}, LATER)
    with pytest.raises(InvalidInput):
        creating(store.operations, instance_id="another", name=text)
    assert len(names(store)) == 1
    assert creating(store.operations, instance_id="another").id


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=storable, description=storable)
def test_any_text_comes_out_as_it_went_in(store: Store, name: str, description: str) -> None:
    operation = creating(store.operations, instance_id=new_id(), name=name, description=description)
    snapshot = store.snapshots.get(operation.snapshot_id)
    assert (snapshot.name, snapshot.description) == (name, description)
    found = store.snapshots.list(ListQuery("project", 100, filters={"name": name}))
    assert snapshot in found
    assert {other.name for other in found} == {name}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moment=st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2999, 1, 1)))  # noqa: DTZ001
def test_times_keep_their_microseconds(store: Store, moment: datetime) -> None:
    operation = available(store.operations, instance_id=new_id(), created_at=moment, deadline=moment)
    assert store.operations.get(operation.id).deadline == moment
    assert store.snapshots.get(operation.snapshot_id).created_at == moment
    store.snapshots.rename(operation.snapshot_id, {"name": "x"}, moment)
    assert store.snapshots.get(operation.snapshot_id).updated_at == moment


def test_times_one_microsecond_apart_are_told_apart(store: Store) -> None:
    for number in range(3):
        created_at = NOON + timedelta(microseconds=number)
        creating(store.operations, instance_id=f"i{number}", name=str(number), created_at=created_at)
    assert names(store) == ["2", "1", "0"]
    assert names(store, sort=[Sort("created_at", descending=False)]) == ["0", "1", "2"]


def test_no_map_is_sql_null_and_an_empty_map_is_not(store: Store) -> None:
    operation = sample_operation()
    store.operations.begin_create(sample_snapshot(operation, snapshots={}, temp_snapshots=None), operation)
    columns = [SNAPSHOTS.c[key] for key in ("temp_snapshots", "failed_snapshots", "fault", "consistency")]
    with store.database.reader.connect() as connection:
        missing = sa.select(SNAPSHOTS.c.id).where(*[column.is_(sa.null()) for column in columns])
        assert list(connection.execute(missing).scalars()) == [operation.snapshot_id]
        empty = sa.select(SNAPSHOTS.c.id).where(SNAPSHOTS.c.snapshots.is_not(sa.null()))
        assert list(connection.execute(empty).scalars()) == [operation.snapshot_id]
    snapshot = store.snapshots.get(operation.snapshot_id)
    assert (snapshot.snapshots, snapshot.temp_snapshots) == ({}, None)


def test_everything_a_row_holds_comes_out_as_it_went_in(store: Store) -> None:
    operation = sample_operation(
        arguments=RestoreArguments(
            Action.RETRY,
            copies={"vølume": "c💾"},
            force=True,
            safety_copies=False,
            plan={"vølume": "copy"},
            omissions=(Omission("volume", "v💾", "Why not?"), Omission("local", None, "")),
        )
    )
    snapshot = sample_snapshot(
        operation,
        updated_at=LATER,
        snapshots={"v": "c"},
        temp_snapshots={"vølume": "💾"},
        failed_snapshots={"a" * 255: "b" * 255},
        fault=Fault("out-of-space", "x" * 70_000 + "💥", NOON),
        consistency=Consistency(ConsistencyLevel.NONE, 0.001),
    )
    store.operations.begin_create(snapshot, operation)
    assert store.snapshots.get(snapshot.id) == snapshot
    assert store.operations.get(operation.id) == operation
