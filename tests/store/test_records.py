"""Fences, progress and what is kept of operations after their end."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from stillframe.domain.arguments import Action
from stillframe.domain.errors import Conflict, NotFound
from stillframe.domain.operation import FlowRecord, Settlement
from stillframe.domain.status import Event, Status
from stillframe.store.operations import Fence
from tests.store.plenty import settled_operations
from tests.store.samples import (
    FAULT,
    LATER,
    available,
    creating,
    deleting,
    following,
    new_id,
    restore_failed,
    restoring,
)

if TYPE_CHECKING:
    from tests.store.conftest import Store

AFTER = LATER + timedelta(microseconds=1)


def test_a_restore_fences_its_instance_from_its_acceptance_on(store: Store) -> None:
    operation = restoring(store.operations)
    assert store.operations.fence("instance") == Fence("instance", operation.snapshot_id, None)
    assert store.operations.fence("another") is None


def test_other_operations_fence_nothing(store: Store) -> None:
    deleting(store.operations, available(store.operations))
    assert store.operations.fence("instance") is None


def test_the_fence_stays_after_a_failure_and_goes_with_the_settlement_that_says_so(store: Store) -> None:
    failed = restore_failed(store.operations)
    assert store.operations.fence("instance") is not None
    rollback = following(failed, Action.ROLLBACK)
    store.operations.begin(rollback, Event.ROLLBACK, Status.RESTORE_ERROR, fence=True)
    store.operations.finish(rollback, Settlement(Event.ROLLED_BACK, succeeded=True, unfence=True), LATER)
    assert store.operations.fence("instance") is None


def test_a_fenced_instance_takes_no_new_snapshot_and_no_restore_to_another(store: Store) -> None:
    other = available(store.operations)
    failed = restore_failed(store.operations)
    with pytest.raises(Conflict, match=failed.snapshot_id):
        creating(store.operations)
    with pytest.raises(Conflict, match=failed.snapshot_id):
        store.operations.begin(following(other, Action.RESTORE), Event.RESTORE, Status.AVAILABLE, fence=True)
    assert store.operations.unfinished() == []
    assert store.snapshots.get(other.snapshot_id).status is Status.AVAILABLE


def test_the_deletion_of_another_snapshot_leaves_the_fence_alone(store: Store) -> None:
    other = available(store.operations)
    failed = restore_failed(store.operations)
    deletion = deleting(store.operations, other)
    store.operations.finish(deletion, Settlement(Event.DELETED, succeeded=True, unfence=True), LATER)
    fence = store.operations.fence("instance")
    assert fence is not None
    assert fence.snapshot_id == failed.snapshot_id


def test_the_deletion_of_the_fencing_snapshot_takes_the_fence_along(store: Store) -> None:
    failed = restore_failed(store.operations)
    deletion = deleting(store.operations, failed, Status.RESTORE_ERROR)
    store.operations.finish(deletion, Settlement(Event.DELETED, succeeded=True, unfence=True), LATER)
    assert store.operations.fence("instance") is None
    assert creating(store.operations).id


@pytest.mark.parametrize("first", [True, False])
def test_the_first_answer_about_the_power_stays(store: Store, *, first: bool) -> None:
    failed = restoring(store.operations)
    assert store.operations.note_power(failed, was_active=first) is first
    assert store.operations.note_power(failed, was_active=not first) is first
    store.operations.finish(failed, Settlement(Event.RESTORE_FAILED, succeeded=False, fault=FAULT), LATER)
    retry = following(failed, Action.RETRY)
    store.operations.begin(retry, Event.RETRY, Status.RESTORE_ERROR, fence=True)
    assert store.operations.note_power(retry, was_active=not first) is first
    assert store.operations.fence("instance") == Fence("instance", failed.snapshot_id, first)


def test_the_power_of_an_instance_without_a_fence_is_not_noted(store: Store) -> None:
    assert store.operations.note_power(creating(store.operations), was_active=True) is False
    assert store.operations.fence("instance") is None


def test_progress_never_falls_and_stops_with_the_operation(store: Store) -> None:
    operation = creating(store.operations)
    seen = []
    for percent in (0, 10, 5, 10, 42, 41, 99, 0):
        store.operations.raise_progress(operation, percent)
        seen.append(store.operations.get(operation.id).progress)
    assert seen == [0, 10, 10, 10, 42, 42, 99, 99]
    store.operations.finish(operation, Settlement(Event.CREATE_FAILED, succeeded=False, fault=FAULT), LATER)
    store.operations.raise_progress(operation, 100)
    assert store.operations.get(operation.id).progress == 99


def test_a_record_is_kept_as_it_is(store: Store) -> None:
    operation = available(store.operations)
    assert store.operations.get(operation.id).record is None
    record = FlowRecord(flow_details={"F": "SUCCESS"}, completed_tasks={"täsk": "💾"}, pending_tasks={})
    store.operations.keep_record(operation.id, record)
    assert store.operations.get(operation.id).record == record
    store.operations.keep_record(new_id(), record)


def test_old_records_are_forgotten_but_never_a_snapshots_latest(store: Store) -> None:
    first = available(store.operations)
    failed = following(first, Action.RESTORE)
    store.operations.begin(failed, Event.RESTORE, Status.AVAILABLE, fence=True)
    store.operations.finish(failed, Settlement(Event.RESTORED, succeeded=True, unfence=True), LATER)
    gone = available(store.operations, instance_id="gone")
    deletion = deleting(store.operations, gone)
    store.operations.finish(deletion, Settlement(Event.DELETED, succeeded=True), LATER)
    assert list(store.operations.forget_finished(LATER)) == []
    assert sorted(store.operations.forget_finished(AFTER)) == sorted([first.id, gone.id, deletion.id])
    assert store.operations.get(failed.id).id == failed.id
    with pytest.raises(NotFound):
        store.operations.get(deletion.id)
    assert list(store.operations.forget_finished(AFTER)) == []


def test_open_operations_are_never_forgotten(store: Store) -> None:
    opened = creating(store.operations)
    assert list(store.operations.forget_finished(AFTER + timedelta(days=10_000))) == []
    assert store.operations.get(opened.id).id == opened.id


def test_an_operation_that_holds_its_instance_is_remembered_until_it_is_freed(store: Store) -> None:
    deletion = deleting(store.operations, available(store.operations))
    settlement = Settlement(Event.DELETED, succeeded=True).keeping_lock()
    store.operations.finish(deletion, settlement, LATER)
    assert deletion.id not in store.operations.forget_finished(AFTER)
    store.operations.free_settled()
    assert list(store.operations.forget_finished(AFTER)) == [deletion.id]
    assert creating(store.operations).id


def test_thousands_of_records_are_forgotten_at_once(store: Store) -> None:
    count = 1203
    for number in range(3):
        creating(store.operations, instance_id=f"open{number}")
    settled_operations(store.database, count)
    assert len(store.operations.forget_finished(AFTER)) == count
    assert len(store.operations.unfinished()) == 3
