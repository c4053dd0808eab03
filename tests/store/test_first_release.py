"""Beside a worker of the first release, which knows no claims, nothing is taken up; what it leaves is, in time."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from stillframe.domain.operation import Settlement
from stillframe.domain.status import Event
from stillframe.store.first_release import Silence, works
from stillframe.store.tables import INSTANCE_LOCKS, OPERATIONS
from tests.store.samples import LATER, creating

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stillframe.domain.operation import Operation
    from tests.store.conftest import Store

# As that release says them.
LOCKS = {
    "postgresql": f"SELECT pg_try_advisory_lock({0x7374696C6C6672})",
    "mariadb": "SELECT GET_LOCK(CONCAT('stillframe-', MD5(DATABASE())), 0)",
}


@contextmanager
def first_release_works(store: Store) -> Iterator[None]:
    """A worker of the first release, as far as the server can tell."""
    kind = store.database.writer.dialect.name
    if kind == "sqlite":
        pytest.skip("the first release keeps a file to itself by a lock in its folder")
    with store.database.writer.connect() as connection:
        assert connection.exec_driver_sql(LOCKS[kind]).scalar_one()
        yield
        connection.invalidate()
    # The server notices in its own time that a connection has gone.
    until = time.monotonic() + 60
    with store.database.reader.connect() as connection:
        while works(connection):
            assert time.monotonic() < until
            time.sleep(0.02)


def taken_up_by_first_release(store: Store) -> Operation:
    operation = creating(store.operations)
    change(store, operation, state="running", attempts=1)
    return operation


def change(store: Store, operation: Operation, **values: object) -> None:
    with store.database.writer.begin() as connection:
        connection.execute(sa.update(OPERATIONS).where(OPERATIONS.c.id == operation.id).values(**values))


def taken(store: Store, seconds: float) -> list[str]:
    return [one.id for one in store.queue.take("new", 5, seconds)]


def test_nothing_is_taken_up_beside_a_worker_of_the_first_release(store: Store) -> None:
    running, waiting = taken_up_by_first_release(store), creating(store.operations, instance_id="other")
    with first_release_works(store):
        assert taken(store, 0.0) == []
        assert store.queue.claim(waiting.id, "new", 30) is None
        assert store.queue.claim(running.id, "new", 30) is None
    assert taken(store, 0.0) == [running.id, waiting.id]


def test_a_claim_of_ours_is_kept_beside_a_worker_of_the_first_release(store: Store) -> None:
    creating(store.operations)
    (mine,) = store.queue.take("new", 1, 30)
    with first_release_works(store):
        assert store.queue.renew([mine], 30) == {mine.id}


def test_an_instance_that_a_worker_of_the_first_release_hangs_on_is_not_given_back(store: Store) -> None:
    operation = taken_up_by_first_release(store)
    settled = Settlement(Event.CREATED, succeeded=True).keeping_lock()
    store.operations.finish(operation, settled, LATER)
    with first_release_works(store):
        store.operations.free_settled()
        assert held(store) == [operation.id]
    store.operations.free_settled()
    assert held(store) == []


def held(store: Store) -> list[str]:
    with store.database.reader.connect() as connection:
        return list(connection.execute(sa.select(INSTANCE_LOCKS.c.operation_id)).scalars())


def test_what_runs_without_a_claim_is_not_free_at_once(store: Store) -> None:
    operation = taken_up_by_first_release(store)
    assert taken(store, 3600) == []
    assert store.queue.claim(operation.id, "new", 30) is None
    assert store.queue.waiting() == 0


def test_what_runs_without_a_claim_is_free_after_a_silence(store: Store) -> None:
    operation = taken_up_by_first_release(store)
    assert taken(store, 3600) == []
    (claimed,) = store.queue.take("new", 5, 0.0)
    assert (claimed.id, claimed.generation, claimed.attempts) == (operation.id, 1, 2)


def test_what_was_given_back_is_free_at_once_although_it_is_running(store: Store) -> None:
    operation = creating(store.operations)
    (claimed,) = store.queue.take("new", 1, 30)
    # As the release before writes it.
    change(store, operation, worker=None, claimed_until=None)
    assert taken(store, 3600) == [claimed.id]


def test_who_is_alone_takes_over_at_once_what_an_earlier_release_left(store: Store) -> None:
    operation = taken_up_by_first_release(store)
    store.queue.put_all_back()
    assert taken(store, 3600) == [operation.id]


@pytest.mark.parametrize("sign", [{"progress": 1}, {"attempts": 2}, {"committed": True}])
def test_a_silence_begins_anew_with_every_sign_of_life(store: Store, sign: dict[str, object]) -> None:
    operation, now = taken_up_by_first_release(store), [0.0]
    silence = Silence(lambda: now[0])

    def lasting(at: float) -> set[str]:
        now[0] = at
        with store.database.reader.connect() as connection:
            return silence.lasting(connection, 30)

    assert lasting(0) == set()
    assert lasting(29) == set()
    change(store, operation, **sign)
    assert lasting(31) == set()
    assert lasting(60) == set()
    assert lasting(61) == {operation.id}
    change(store, operation, claimed_until=LATER, generation=1)
    assert lasting(62) == set()
