"""Nothing is prepared beside a worker that is at something, of whichever release."""

from __future__ import annotations

from threading import Thread
from typing import TYPE_CHECKING

from stillframe.domain.operation import Settlement
from stillframe.domain.status import Event
from tests.store.samples import LATER, creating
from tests.store.test_first_release import first_release_works

if TYPE_CHECKING:
    from stillframe.domain.operation import Operation
    from tests.store.conftest import Store


def quiet(store: Store) -> bool:
    with store.queue.quiet() as nobody_works:
        return nobody_works


def taken(store: Store, seconds: float = 30) -> Operation:
    creating(store.operations)
    (operation,) = store.queue.take("worker", 1, seconds)
    return operation


def test_the_database_is_quiet_while_operations_only_wait(store: Store) -> None:
    creating(store.operations)
    assert quiet(store)


def test_the_database_is_not_quiet_beside_a_claim_that_holds(store: Store) -> None:
    operation = taken(store)
    assert not quiet(store)
    store.queue.put_back(operation, 30)
    assert quiet(store)


def test_the_database_is_quiet_once_a_claim_has_run_out(store: Store) -> None:
    taken(store, 0.0)
    assert quiet(store)


def test_the_database_is_not_quiet_while_a_call_hangs_in_what_is_settled(store: Store) -> None:
    operation = taken(store)
    store.operations.finish(operation, Settlement(Event.CREATED, succeeded=True).keeping_lock(), LATER)
    assert not quiet(store)


def test_the_database_is_quiet_once_everything_is_settled(store: Store) -> None:
    store.operations.finish(taken(store), Settlement(Event.CREATED, succeeded=True), LATER)
    assert quiet(store)


def test_the_database_is_not_quiet_beside_a_worker_of_the_first_release(store: Store) -> None:
    with first_release_works(store):
        assert not quiet(store)


def test_nobody_takes_anything_up_while_it_is_kept_quiet(store: Store) -> None:
    creating(store.operations)
    found: list[Operation] = []
    taker = Thread(target=lambda: found.extend(store.queue.take("worker", 1, 30)))
    with store.queue.quiet():
        taker.start()
        taker.join(0.5)
        assert found == []
    taker.join()
    assert len(found) == 1
