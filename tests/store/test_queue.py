"""Claims: each operation is one worker's at a time, in a fair order, within limits, and never that of a sleeper."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from stillframe.domain.errors import Superseded
from stillframe.domain.operation import OperationState, Settlement
from stillframe.domain.status import Event
from stillframe.engine.persistence import FlowBooks
from stillframe.settings.limits import OperationLimits
from stillframe.store.clock import utc_now
from stillframe.store.queue import OperationQueue
from tests.store.samples import LATER, NOON, creating

if TYPE_CHECKING:
    from collections.abc import Callable

    from stillframe.domain.operation import Operation
    from tests.store.conftest import Store

CREATED = Settlement(Event.CREATED, succeeded=True)


def claimed(store: Store, worker: str = "first", seconds: float = 30) -> Operation:
    """A new operation that a worker has claimed."""
    operation = store.queue.claim(creating(store.operations).id, worker, seconds)
    assert operation is not None
    return operation


def many(store: Store, projects: str, **given: object) -> list[str]:
    """Operations of the projects that the letters name, each a second younger than the one before."""
    return [
        creating(
            store.operations,
            project_id=project,
            instance_id=f"i{number}",
            created_at=NOON + timedelta(seconds=number),
            **given,
        ).id
        for number, project in enumerate(projects)
    ]


def test_what_was_accepted_is_taken_once(store: Store) -> None:
    operation = creating(store.operations)
    (taken,) = store.queue.take("first", 5, 30)
    assert (taken.id, taken.state, taken.attempts, taken.generation) == (operation.id, OperationState.RUNNING, 1, 1)
    assert store.queue.take("second", 5, 30) == []
    assert store.queue.claim(operation.id, "second", 30) is None
    assert store.queue.waiting() == 0


def test_no_more_is_taken_than_asked_for(store: Store) -> None:
    ids = many(store, "aaaa")
    assert [one.id for one in store.queue.take("first", 3, 30)] == ids[:3]
    assert [one.id for one in store.queue.take("first", 3, 30)] == ids[3:]
    assert store.queue.take("first", 0, 30) == []


def test_projects_take_turns_whoever_came_first(store: Store) -> None:
    ids = many(store, "aaaabbc")
    taken = store.queue.take("first", 4, 30)
    assert [ids.index(one.id) for one in taken] == [0, 4, 6, 1]
    # Two of a's and one each of the others run now.
    assert [ids.index(one.id) for one in store.queue.take("second", 4, 30)] == [5, 2, 3]


def test_the_position_is_that_in_which_they_are_taken(store: Store) -> None:
    ids = many(store, "aaaabbc")
    positions = {one: store.queue.position(store.operations.get(one)) for one in ids}
    assert sorted(positions.values(), key=str) == [1, 2, 3, 4, 5, 6, 7]
    order = [one.id for _turn in ids for one in store.queue.take("first", 1, 30)]
    assert sorted(ids, key=lambda one: positions[one] or 0) == order
    assert store.queue.position(store.operations.get(ids[0])) is None


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (OperationLimits(project=2), [0, 1]),
        (OperationLimits(host=3), [0, 1, 2]),
        (OperationLimits(backend=1), [0]),
        (OperationLimits(project=3, host=2), [0, 1]),
    ],
)
def test_limits_hold_over_all_workers(store: Store, limits: OperationLimits, expected: list[int]) -> None:
    ids = many(store, "aaaa", limit_keys=("host:h", "backend:b"))
    queue = OperationQueue(store.database, limits)
    taken = [one for worker in ("first", "second") for one in queue.take(worker, 3, 30)]
    assert [ids.index(one.id) for one in taken] == expected
    store.operations.finish(taken[0], CREATED, LATER)
    assert [ids.index(one.id) for one in queue.take("third", 9, 30)] == [len(expected)]


def test_a_full_host_keeps_nobody_else_waiting(store: Store) -> None:
    full = many(store, "aaaaa", limit_keys=("host:full",))
    other = creating(store.operations, instance_id="other", project_id="a", created_at=LATER, limit_keys=("host:free",))
    taken = OperationQueue(store.database, OperationLimits(host=1)).take("first", 5, 30)
    assert [one.id for one in taken] == [full[0], other.id]


def test_a_claim_that_is_not_renewed_passes_on_after_its_time(store: Store) -> None:
    operation = claimed(store, seconds=4.0)
    assert store.queue.claim(operation.id, "second", 30) is None
    time.sleep(4.2)
    (taken,) = store.queue.take("second", 1, 30)
    assert (taken.id, taken.generation, taken.attempts) == (operation.id, 2, 2)


def test_a_claim_that_is_renewed_holds(store: Store) -> None:
    operation = claimed(store, seconds=1.0)
    assert store.queue.renew([operation], 30) == {operation.id}
    time.sleep(1.2)
    assert store.queue.take("second", 1, 30) == []
    assert store.queue.holds(operation)


def test_a_claim_that_ran_out_can_be_taken_back_until_somebody_else_has_it(store: Store) -> None:
    operation = claimed(store, seconds=0.1)
    time.sleep(0.2)
    assert store.queue.renew([operation], 0.1) == {operation.id}
    time.sleep(0.2)
    assert store.queue.claim(operation.id, "second", 30)
    assert store.queue.renew([operation], 30) == set()
    assert not store.queue.holds(operation)


def _books(store: Store, operation: Operation) -> FlowBooks:
    books = FlowBooks(store.database.writer)
    books.upgrade()
    return books.guarded(store.queue.guard(operation))


def _change_book(store: Store, sleeper: Operation) -> None:
    detail = FlowBooks(store.database.writer).open(sleeper.id, "Flow")
    detail.state = "RUNNING"
    _books(store, sleeper).backend.get_connection().update_flow_details(detail)


WRITES: dict[str, Callable[[Store, Operation], object]] = {
    "commit": lambda store, sleeper: store.operations.commit(sleeper, {"v1": "t1"}),
    "make_durable": lambda store, sleeper: store.operations.make_durable(sleeper),
    "note_power": lambda store, sleeper: store.operations.note_power(sleeper, was_active=True),
    "finish": lambda store, sleeper: store.operations.finish(sleeper, CREATED, LATER),
    "a new book": lambda store, sleeper: _books(store, sleeper).open(sleeper.id, "Flow"),
    "a book's change": _change_book,
}


@pytest.mark.parametrize("write", WRITES)
def test_who_slept_through_the_end_of_a_claim_can_write_nothing(store: Store, write: str) -> None:
    FlowBooks(store.database.writer).upgrade()
    sleeper = claimed(store, seconds=0.05)
    time.sleep(0.1)
    successor = store.queue.claim(sleeper.id, "second", 30)
    assert successor is not None
    before = store.operations.get(sleeper.id)
    with pytest.raises(Superseded):
        WRITES[write](store, sleeper)
    store.operations.raise_progress(sleeper, 50)
    store.queue.put_back(sleeper)
    assert store.operations.get(sleeper.id) == before
    assert store.queue.holds(successor)
    WRITES[write](store, successor)


def test_what_is_put_back_is_taken_after_its_wait(store: Store) -> None:
    operation = claimed(store)
    store.queue.put_back(operation, 4.0)
    assert store.queue.take("second", 1, 30) == []
    time.sleep(4.2)
    (taken,) = store.queue.take("second", 1, 30)
    assert (taken.attempts, taken.generation) == (2, 2)


def test_what_is_put_back_uncounted_has_its_attempt_again(store: Store) -> None:
    operation = claimed(store)
    store.queue.put_back(operation, counted=False)
    (taken,) = store.queue.take("second", 1, 30)
    assert (taken.attempts, taken.generation) == (1, 2)


def test_claims_of_the_dead_are_put_back_by_who_is_alone(store: Store) -> None:
    operation = claimed(store)
    store.queue.put_all_back()
    (taken,) = store.queue.take("second", 1, 30)
    assert taken.id == operation.id


def test_an_instance_that_a_hanging_call_holds_is_not_freed_by_others(store: Store) -> None:
    operation = claimed(store, seconds=4.0)
    failed = Settlement(Event.CREATE_FAILED, succeeded=False).keeping_lock()
    store.operations.finish(operation, failed, LATER)
    assert store.queue.renew([operation], 4.0) == set()
    store.operations.free_settled()
    assert _reserved(store)
    time.sleep(4.2)
    store.operations.free_settled()
    assert not _reserved(store)


def _reserved(store: Store) -> bool:
    with store.database.reader.connect() as connection:
        return bool(connection.execute(sa.text("SELECT COUNT(*) FROM instance_locks")).scalar_one())


def test_the_clock_is_in_utc_and_goes_on_within_a_transaction(store: Store) -> None:
    with store.database.reader.begin() as connection:
        first = utc_now(connection)
        time.sleep(0.02)
        assert timedelta(0) < utc_now(connection) - first < timedelta(seconds=5)
