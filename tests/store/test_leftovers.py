"""What the store says about things that were left behind."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from stillframe.domain.errors import Conflict
from stillframe.domain.operation import Settlement
from stillframe.domain.status import Event, Status
from stillframe.store.leftovers import LeftoverStore
from stillframe.store.tables import INSTANCE_LOCKS
from tests.store import samples

if TYPE_CHECKING:
    from tests.store.conftest import Store


@pytest.fixture
def leftovers(store: Store) -> LeftoverStore:
    return LeftoverStore(store.database)


def test_what_is_known_about_owners_and_makers(store: Store, leftovers: LeftoverStore) -> None:
    made = samples.available(store.operations)
    busy = samples.creating(store.operations, instance_id="other")
    gone = samples.available(store.operations, instance_id="third")
    deletion = samples.deleting(store.operations, gone)
    store.operations.finish(deletion, Settlement(Event.DELETED, succeeded=True), samples.LATER)
    unknown = samples.new_id()
    owners = leftovers.owners([made.snapshot_id, busy.snapshot_id, gone.snapshot_id, unknown])
    seen = {
        one: (owner.snapshot and owner.snapshot.status, owner.project_id, owner.ended_at, owner.busy)
        for one, owner in owners.items()
    }
    assert seen == {
        made.snapshot_id: (Status.AVAILABLE, "project", samples.LATER, False),
        busy.snapshot_id: (Status.CREATING, "project", None, True),
        gone.snapshot_id: (None, "project", samples.LATER, False),
        unknown: (None, None, None, False),
    }
    assert leftovers.makers([made.id, busy.id, unknown]).keys() == {made.id, busy.id}


def test_an_owner_is_busy_while_a_settled_operation_holds_its_instance(store: Store, leftovers: LeftoverStore) -> None:
    operation = samples.creating(store.operations)
    failed = Settlement(Event.CREATE_FAILED, succeeded=False).keeping_lock()
    store.operations.finish(operation, failed, samples.LATER)
    assert leftovers.owners([operation.snapshot_id])[operation.snapshot_id].busy
    (lock,) = leftovers.locks()
    assert (lock.instance_id, lock.operation_id) == (operation.instance_id, operation.id)
    assert lock.holder is not None
    leftovers.drop_lock(operation.instance_id, operation.id)
    assert not leftovers.owners([operation.snapshot_id])[operation.snapshot_id].busy
    assert not leftovers.locks()


def test_more_ids_than_one_statement_takes(store: Store, leftovers: LeftoverStore) -> None:
    made = samples.available(store.operations)
    many = [samples.new_id() for _ in range(1500)]
    assert leftovers.owners([*many, made.snapshot_id])[made.snapshot_id].snapshot is not None
    assert leftovers.makers([*many, made.id]).keys() == {made.id}


def test_the_lock_of_an_open_operation_is_not_dropped(store: Store, leftovers: LeftoverStore) -> None:
    operation = samples.creating(store.operations)
    leftovers.drop_lock(operation.instance_id, operation.id)
    assert len(leftovers.locks()) == 1


def test_a_lock_of_no_operation_is_found_and_dropped(store: Store, leftovers: LeftoverStore) -> None:
    with store.database.writing() as connection:
        connection.execute(sa.insert(INSTANCE_LOCKS).values(instance_id="i", operation_id="nobody"))
    (lock,) = leftovers.locks()
    assert lock.holder is None
    leftovers.drop_lock("i", "nobody")
    assert not leftovers.locks()


def test_an_operation_waits_while_its_instance_is_held(store: Store, leftovers: LeftoverStore) -> None:
    began, errors = threading.Event(), list[Exception]()

    def begin() -> None:
        began.set()
        try:
            samples.creating(store.operations)
        except Exception as error:  # noqa: BLE001  # the test's own thread tells it
            errors.append(error)

    thread = threading.Thread(target=begin)
    with leftovers.holding("instance"):
        thread.start()
        assert began.wait(60)
        thread.join(0.3)
        assert thread.is_alive()
        assert not store.operations.unfinished()
    thread.join(60)
    assert (thread.is_alive(), errors, len(store.operations.unfinished())) == (False, [], 1)


def test_an_instance_that_an_operation_holds_is_not_held(store: Store, leftovers: LeftoverStore) -> None:
    operation = samples.creating(store.operations)
    with pytest.raises(Conflict), leftovers.holding(operation.instance_id):
        pytest.fail("it was held twice")


def test_nothing_is_left_of_a_hold_that_broke_off(store: Store, leftovers: LeftoverStore) -> None:
    operation = samples.restoring(store.operations)
    failed = Settlement(Event.RESTORE_FAILED, succeeded=False)
    store.operations.finish(operation, failed, samples.LATER)

    def break_off() -> None:
        with leftovers.holding(operation.instance_id) as held:
            held.drop_fence(operation.snapshot_id)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert not leftovers.locks()
    assert [fence.snapshot_id for fence in leftovers.fences()] == [operation.snapshot_id]
    with leftovers.holding(operation.instance_id) as held:
        assert held.owner(operation.snapshot_id).snapshot is not None
        held.drop_fence("another")
        held.drop_fence(operation.snapshot_id)
    assert not leftovers.fences()
