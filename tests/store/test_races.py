"""Many threads at once: exactly one wins, the others are told so in the words of our error tree."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from stillframe.domain.arguments import Action
from stillframe.domain.errors import Conflict, StillframeError, Superseded
from stillframe.domain.operation import FlowRecord, Settlement
from stillframe.domain.status import Event, Status
from stillframe.engine.persistence import FlowBooks
from stillframe.store.snapshots import ListQuery
from tests.store.samples import (
    FAULT,
    LATER,
    NOON,
    available,
    creating,
    deleting,
    following,
    restore_failed,
    restoring,
    sample_operation,
    sample_snapshot,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stillframe.domain.operation import Operation
    from tests.store.conftest import Store

THREADS = 8
ROUNDS = 6


def at_once(calls: Sequence[Callable[[], Any]]) -> Counter[str]:
    """Start all calls in the same moment; how each ended, by the name of its error, or `done`."""
    gate = threading.Barrier(len(calls))

    def one(call: Callable[[], Any]) -> str:
        gate.wait()
        try:
            call()
        except StillframeError as error:
            return type(error).__name__
        return "done"

    with ThreadPoolExecutor(len(calls)) as pool:
        return Counter(pool.map(one, calls))


def test_exactly_one_of_many_creations_on_one_instance_is_accepted(store: Store) -> None:
    for turn in range(ROUNDS):
        ended = at_once([partial(creating, store.operations, instance_id=f"i{turn}")] * THREADS)
        assert ended == {"done": 1, "Conflict": THREADS - 1}
    assert len(store.operations.unfinished()) == ROUNDS
    assert len(store.snapshots.ids()) == ROUNDS


def test_exactly_one_of_many_restores_to_one_snapshot_is_accepted(store: Store) -> None:
    for turn in range(ROUNDS):
        base = available(store.operations, instance_id=f"i{turn}")
        wanted = [following(base, Action.RESTORE) for _ in range(THREADS)]
        calls = [
            partial(store.operations.begin, operation, Event.RESTORE, Status.AVAILABLE, fence=True)
            for operation in wanted
        ]
        assert at_once(calls) == {"done": 1, "Conflict": THREADS - 1}
        assert [o.id for o in store.operations.unfinished() if o.instance_id == f"i{turn}"] == [
            store.snapshots.get(base.snapshot_id).task_id
        ]


def test_exactly_one_of_many_ends_of_one_operation_counts(store: Store) -> None:
    good = Settlement(Event.CREATED, succeeded=True, snapshots={"v1": "c1"})
    bad = Settlement(Event.CREATE_FAILED, succeeded=False, fault=FAULT)
    for turn in range(ROUNDS):
        operation = creating(store.operations, instance_id=f"i{turn}")
        calls = [
            partial(store.operations.finish, operation, settlement, LATER + timedelta(microseconds=number))
            for number, settlement in enumerate((good, bad) * (THREADS // 2))
        ]
        assert at_once(calls) == {"done": 1, "Superseded": THREADS - 1}
        snapshot, settled = store.snapshots.get(operation.snapshot_id), store.operations.get(operation.id)
        succeeded = snapshot.status is Status.AVAILABLE
        assert (settled.progress == 100) is succeeded
        assert (snapshot.fault is None) is succeeded


def test_each_operation_is_claimed_by_one_of_many_workers(store: Store) -> None:
    waiting = {creating(store.operations, instance_id=f"i{number}").id for number in range(3 * THREADS)}
    taken: list[str] = []

    def take(worker: str) -> None:
        while claimed := store.queue.take(worker, 2, 30):
            taken.extend(operation.id for operation in claimed)

    at_once([partial(take, f"w{number}") for number in range(THREADS)])
    assert sorted(taken) == sorted(waiting)


def test_a_creation_never_slips_in_behind_a_restore_that_fails(store: Store) -> None:
    for turn in range(ROUNDS):
        instance = f"i{turn}"
        operation = restoring(store.operations, instance_id=instance)
        failure = Settlement(Event.RESTORE_FAILED, succeeded=False, fault=FAULT)
        calls: list[Callable[[], Any]] = [partial(store.operations.finish, operation, failure, LATER)]
        calls += [partial(creating, store.operations, instance_id=instance)] * (THREADS - 1)
        assert at_once(calls) == {"done": 1, "Conflict": THREADS - 1}


def test_the_first_answer_about_the_power_is_the_answer_for_all(store: Store) -> None:
    def note(operation: Operation, answers: list[bool], *, said: bool) -> None:
        answers.append(store.operations.note_power(operation, was_active=said))

    for turn in range(ROUNDS):
        operation = restoring(store.operations, instance_id=f"i{turn}")
        answers: list[bool] = []
        at_once([partial(note, operation, answers, said=said) for said in (True, False) * (THREADS // 2)])
        fence = store.operations.fence(f"i{turn}")
        assert fence is not None
        assert set(answers) == {fence.was_active}


def test_progress_of_many_threads_ends_at_the_highest(store: Store) -> None:
    operation = creating(store.operations)
    percents = (5, 80, 20, 60, 99, 1, 40, 70)
    at_once([partial(store.operations.raise_progress, operation, percent) for percent in percents])
    assert store.operations.get(operation.id).progress == 99


def life_of_an_instance(store: Store, instance_id: str, seed: int) -> None:
    """A snapshot is created, renamed, restored to, retried, rolled back and deleted; whoever is in the way says so."""
    chance = random.Random(seed)
    operations = store.operations
    operation = available(operations, instance_id=instance_id)
    store.snapshots.rename(operation.snapshot_id, {"name": f"n{chance.random()}"}, LATER)
    restore = following(operation, Action.RESTORE)
    operations.begin(restore, Event.RESTORE, Status.AVAILABLE, fence=True)
    restore = store.queue.claim(restore.id, "worker", 30) or restore
    operations.note_power(restore, was_active=chance.random() < 0.5)
    operations.commit(restore, {"v1": "t1"})
    operations.raise_progress(restore, chance.randrange(100))
    operations.finish(restore, Settlement(Event.RESTORE_FAILED, succeeded=False, fault=FAULT).keeping_lock(), LATER)
    operations.free_settled(restore.id)
    operations.free_settled()
    rollback = following(operation, Action.ROLLBACK)
    operations.begin(rollback, Event.ROLLBACK, Status.RESTORE_ERROR, fence=True)
    operations.finish(rollback, Settlement(Event.ROLLED_BACK, succeeded=True, unfence=True), LATER)
    operations.keep_record(rollback.id, FlowRecord({}, {}, {}))
    deletion = deleting(operations, operation)
    operations.finish(deletion, Settlement(Event.DELETED, succeeded=True, unfence=True), LATER)
    operations.forget_finished(LATER)
    store.snapshots.list(ListQuery("project", 10))


def test_many_instances_live_their_lives_side_by_side(store: Store) -> None:
    calls = [
        partial(life_of_an_instance, store, f"i{number}-{turn}", number)
        for number in range(THREADS * 2)
        for turn in range(2)
    ]
    assert at_once(calls) == {"done": THREADS * 4}
    assert store.snapshots.ids() == frozenset()
    assert store.operations.unfinished() == []


def test_whoever_fights_over_one_instance_gets_through_or_is_told_why(store: Store) -> None:
    failed = restore_failed(store.operations)

    def fight(number: int) -> None:
        chance = random.Random(number)
        for _ in range(10):
            event, action = chance.choice([(Event.RETRY, Action.RETRY), (Event.ROLLBACK, Action.ROLLBACK)])
            operation = following(failed, action)
            try:
                store.operations.begin(operation, event, Status.RESTORE_ERROR, fence=True)
            except Conflict:
                continue
            if event is Event.ROLLBACK:
                settled = Settlement(Event.ROLLBACK_FAILED, succeeded=False, fault=FAULT)
                store.operations.finish(operation, settled, LATER)
                return
            settled = Settlement(Event.RESTORE_FAILED, succeeded=False, fault=FAULT)
            store.operations.finish(operation, settled, LATER)
            with pytest.raises(Superseded):
                store.operations.finish(operation, settled, NOON)

    assert at_once([partial(fight, number) for number in range(THREADS)]) == {"done": THREADS}
    assert store.operations.unfinished() == []


def test_new_snapshots_of_the_same_id_are_a_conflict_not_a_crash(store: Store) -> None:
    twin = sample_operation(instance_id="a")
    other = sample_operation(instance_id="b", snapshot_id=twin.snapshot_id)
    calls: list[Callable[[], Any]] = [
        lambda: store.operations.begin_create(sample_snapshot(twin), twin),
        lambda: store.operations.begin_create(sample_snapshot(other), other),
    ]
    assert at_once(calls) == {"done": 1, "Conflict": 1}
    assert len(store.operations.unfinished()) == 1


def test_flow_books_of_many_operations_are_kept_side_by_side(store: Store) -> None:
    books = FlowBooks(store.database.writer)
    books.upgrade()

    def keep(number: int) -> None:
        for turn in range(5):
            name = f"operation-{number}-{turn}"
            detail = books.open(name, "AFlow")
            detail.state = "RUNNING"
            books.backend.get_connection().update_flow_details(detail)
            read = books.read(name)
            assert read is not None
            assert read.state == "RUNNING"
            books.drop(name)
            books.drop(name)

    assert at_once([partial(keep, number) for number in range(THREADS)]) == {"done": THREADS}
    assert books.ids() == []
