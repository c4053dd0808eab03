"""Operations begin and end by compare-and-set, each in one transaction."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from stillframe.domain.arguments import Action
from stillframe.domain.errors import Conflict, NotFound, Refused, Superseded
from stillframe.domain.operation import FlowRecord, OperationState, Settlement
from stillframe.domain.snapshot import Consistency, ConsistencyLevel
from stillframe.domain.status import Event, Status
from stillframe.store.tables import FENCES, INSTANCE_LOCKS, OPERATIONS, SNAPSHOTS
from tests.store.samples import (
    FAULT,
    LATER,
    NOON,
    available,
    creating,
    deleting,
    following,
    new_id,
    restore_failed,
    restoring,
    sample_operation,
    sample_snapshot,
)

if TYPE_CHECKING:
    from tests.store.conftest import Store

CREATED = Settlement(Event.CREATED, succeeded=True, snapshots={"v1": "c1"})
CREATE_FAILED = Settlement(Event.CREATE_FAILED, succeeded=False, fault=FAULT)


def rows(store: Store) -> dict[str, list[tuple[object, ...]]]:
    """Everything there is, to see that something changed nothing."""
    with store.database.reader.connect() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(sa.select(table))), key=repr)
            for table in (SNAPSHOTS, OPERATIONS, INSTANCE_LOCKS, FENCES)
        }


def test_what_was_accepted_can_be_read_back(store: Store) -> None:
    operation = sample_operation()
    snapshot = sample_snapshot(operation)
    store.operations.begin_create(snapshot, operation)
    assert store.snapshots.get(snapshot.id) == snapshot
    assert store.operations.get(operation.id) == operation


def test_what_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        store.snapshots.get(new_id())
    with pytest.raises(NotFound):
        store.operations.get(new_id())
    with pytest.raises(NotFound):
        store.snapshots.rename(new_id(), {"name": "x"}, LATER)


def test_finishing_shows_status_maps_and_consistency_at_once(store: Store) -> None:
    operation = creating(store.operations)
    consistency = Consistency(ConsistencyLevel.FILESYSTEM, 12.345)
    settlement = Settlement(Event.CREATED, succeeded=True, snapshots={"v1": "c1"}, consistency=consistency)
    assert store.operations.finish(operation, settlement, LATER) is Status.AVAILABLE
    snapshot = store.snapshots.get(operation.snapshot_id)
    assert (snapshot.status, snapshot.snapshots, snapshot.consistency) == (
        Status.AVAILABLE,
        {"v1": "c1"},
        consistency,
    )
    assert snapshot.updated_at == LATER
    finished = store.operations.get(operation.id)
    assert (finished.state, finished.progress, finished.finished_at) == (OperationState.SUCCEEDED, 100, LATER)


def test_a_failed_operation_leaves_its_fault_and_keeps_its_progress(store: Store) -> None:
    operation = creating(store.operations)
    store.operations.raise_progress(operation, 40)
    assert store.operations.finish(operation, CREATE_FAILED, LATER) is Status.ERROR
    snapshot = store.snapshots.get(operation.snapshot_id)
    assert (snapshot.status, snapshot.fault, snapshot.updated_at) == (Status.ERROR, FAULT, LATER)
    failed = store.operations.get(operation.id)
    assert (failed.progress, failed.fault) == (40, FAULT)


@pytest.mark.parametrize(("told", "reached", "kept"), [(0, 30, 30), (40, 30, 40), (40, 0, 40)])
def test_the_progress_of_a_failed_operation_does_not_fall(store: Store, told: int, reached: int, kept: int) -> None:
    operation = creating(store.operations)
    store.operations.raise_progress(operation, told)
    store.operations.finish(operation, CREATE_FAILED, LATER, reached)
    assert store.operations.get(operation.id).progress == kept


def test_the_next_success_takes_the_fault_away(store: Store) -> None:
    failed = restore_failed(store.operations)
    assert store.snapshots.get(failed.snapshot_id).fault == FAULT
    retry = following(failed, Action.RETRY)
    store.operations.begin(retry, Event.RETRY, Status.RESTORE_ERROR, fence=True)
    whole = Settlement(Event.RESTORED, succeeded=True, temp_snapshots=None, failed_snapshots=None, unfence=True)
    store.operations.finish(retry, whole, LATER)
    snapshot = store.snapshots.get(failed.snapshot_id)
    assert (snapshot.status, snapshot.fault) == (Status.AVAILABLE, None)
    assert (snapshot.temp_snapshots, snapshot.failed_snapshots) == (None, None)


def test_a_rename_waits_for_the_end_of_an_operation(store: Store) -> None:
    operation = creating(store.operations)
    with pytest.raises(Conflict):
        store.snapshots.rename(operation.snapshot_id, {"name": "better"}, LATER)
    store.operations.finish(operation, CREATED, LATER)
    before = store.snapshots.get(operation.snapshot_id)
    store.snapshots.rename(operation.snapshot_id, {"name": "better"}, LATER)
    assert store.snapshots.get(operation.snapshot_id) == replace(before, name="better")


def test_a_rename_to_the_same_name_is_no_mistake(store: Store) -> None:
    operation = available(store.operations)
    store.snapshots.rename(operation.snapshot_id, {"name": "same", "description": "d"}, LATER)
    store.snapshots.rename(operation.snapshot_id, {"name": "same", "description": "d"}, LATER)
    assert store.snapshots.get(operation.snapshot_id).name == "same"


def test_a_busy_instance_refuses_a_second_operation_and_nothing_changes(store: Store) -> None:
    busy = creating(store.operations)
    before = rows(store)
    second = sample_operation()
    with pytest.raises(Conflict, match="Another operation"):
        store.operations.begin_create(sample_snapshot(second), second)
    with pytest.raises(Conflict, match="Another operation"):
        store.operations.begin(following(busy, Action.DELETE), Event.DELETE, Status.AVAILABLE, fence=False)
    assert rows(store) == before


def test_other_instances_are_not_held_up(store: Store) -> None:
    creating(store.operations)
    assert creating(store.operations, instance_id="another").instance_id == "another"


def test_an_instance_is_given_back_with_the_end_of_its_operation(store: Store) -> None:
    store.operations.finish(creating(store.operations), CREATE_FAILED, LATER)
    assert creating(store.operations).id


def test_an_operation_that_hangs_keeps_its_instance_until_it_is_freed(store: Store) -> None:
    hanging = creating(store.operations)
    store.operations.finish(hanging, CREATE_FAILED.keeping_lock(), LATER)
    with pytest.raises(Conflict):
        creating(store.operations)
    store.operations.free_settled(hanging.id)
    assert creating(store.operations).id


def test_freeing_all_settled_operations_leaves_the_open_ones_their_instances(store: Store) -> None:
    store.operations.free_settled()
    hanging = creating(store.operations, instance_id="hangs")
    store.operations.finish(hanging, CREATE_FAILED.keeping_lock(), LATER)
    opened = creating(store.operations, instance_id="works")
    store.operations.free_settled(opened.id)
    store.operations.free_settled()
    with pytest.raises(Conflict):
        creating(store.operations, instance_id="works")
    assert creating(store.operations, instance_id="hangs").id


def test_a_status_that_changed_underneath_is_a_conflict_and_nothing_changes(store: Store) -> None:
    operation = available(store.operations)
    before = rows(store)
    with pytest.raises(Conflict, match="changed while"):
        store.operations.begin(following(operation, Action.DELETE), Event.DELETE, Status.ERROR, fence=False)
    with pytest.raises(Conflict, match="changed while"):
        store.operations.begin(following(operation, Action.RETRY), Event.RETRY, Status.RESTORE_ERROR, fence=True)
    assert rows(store) == before


def test_an_event_that_the_table_forbids_is_refused_and_nothing_changes(store: Store) -> None:
    operation = available(store.operations)
    before = rows(store)
    with pytest.raises(Refused):
        store.operations.begin(following(operation, Action.RETRY), Event.RETRY, Status.AVAILABLE, fence=True)
    assert rows(store) == before


def test_a_snapshot_that_is_gone_meanwhile_is_a_conflict(store: Store) -> None:
    operation = available(store.operations)
    deletion = deleting(store.operations, operation)
    store.operations.finish(deletion, Settlement(Event.DELETED, succeeded=True), LATER)
    with pytest.raises(Conflict):
        store.operations.begin(following(operation, Action.RESTORE), Event.RESTORE, Status.AVAILABLE, fence=True)
    assert store.operations.fence(operation.instance_id) is None


def test_what_is_settled_stays_settled(store: Store) -> None:
    operation = creating(store.operations)
    store.operations.finish(operation, CREATED, LATER)
    before = rows(store)
    with pytest.raises(Superseded):
        store.operations.finish(operation, CREATE_FAILED, LATER)
    assert store.queue.claim(operation.id, "worker", 30) is None
    with pytest.raises(Superseded):
        store.operations.commit(operation, {"v1": "t1"})
    store.operations.raise_progress(operation, 100)
    assert rows(store) == before


@pytest.mark.parametrize("settlement", [CREATED, CREATE_FAILED])
def test_a_settlement_whose_reply_was_lost_can_be_repeated(store: Store, settlement: Settlement) -> None:
    operation = creating(store.operations)
    status = store.operations.finish(operation, settlement, LATER)
    before = rows(store)
    assert store.operations.finish(operation, settlement, LATER) is status
    with pytest.raises(Superseded):
        store.operations.finish(operation, settlement, NOON)
    assert rows(store) == before


def test_a_deletion_whose_reply_was_lost_can_be_repeated(store: Store) -> None:
    deletion = deleting(store.operations, available(store.operations))
    settlement = Settlement(Event.DELETED, succeeded=True, unfence=True)
    assert store.operations.finish(deletion, settlement, LATER) is Status.GONE
    assert creating(store.operations).id
    before = rows(store)
    assert store.operations.finish(deletion, settlement, LATER) is Status.GONE
    assert rows(store) == before


def test_an_operation_that_never_was_cannot_go_on(store: Store) -> None:
    never = replace(creating(store.operations), id=new_id())
    assert store.queue.holds(never) is False
    assert store.queue.claim(never.id, "worker", 30) is None
    with pytest.raises(Superseded):
        store.operations.finish(never, CREATED, LATER)


@pytest.mark.parametrize("status", [Status.AVAILABLE, Status.RESTORE_ERROR, None])
def test_a_snapshot_that_left_its_status_is_not_settled_twice(store: Store, status: Status | None) -> None:
    operation = creating(store.operations)
    with store.database.writer.begin() as connection:
        here = SNAPSHOTS.c.id == operation.snapshot_id
        if status is None:
            connection.execute(sa.delete(SNAPSHOTS).where(here))
        else:
            connection.execute(sa.update(SNAPSHOTS).where(here).values(status=status.value))
    before = rows(store)
    with pytest.raises(Superseded):
        store.operations.finish(operation, CREATED, LATER)
    assert rows(store) == before


def test_attempts_are_counted_from_one_and_make_the_operation_run(store: Store) -> None:
    operation = creating(store.operations)
    for number in (1, 2, 3):
        claimed = store.queue.claim(operation.id, "worker", 30)
        assert claimed is not None
        assert (claimed.attempts, claimed.generation) == (number, number)
        store.queue.put_back(claimed)
    read = store.operations.get(operation.id)
    assert (read.attempts, read.state) == (3, OperationState.RUNNING)


def test_the_point_of_no_return_is_recorded_with_the_safety_copies(store: Store) -> None:
    operation = restoring(store.operations)
    assert store.operations.get(operation.id).committed is False
    store.operations.commit(operation, {"v1": "t1"})
    assert store.operations.get(operation.id).committed is True
    assert store.snapshots.get(operation.snapshot_id).temp_snapshots == {"v1": "t1"}


def test_a_retry_goes_past_the_point_of_no_return_with_the_safety_copies_of_before(store: Store) -> None:
    failed = restore_failed(store.operations)
    retry = following(failed, Action.RETRY)
    store.operations.begin(retry, Event.RETRY, Status.RESTORE_ERROR, fence=True)
    store.operations.commit(retry, None)
    store.operations.commit(retry, None)
    assert store.operations.get(retry.id).committed is True
    snapshot = store.snapshots.get(failed.snapshot_id)
    assert (snapshot.temp_snapshots, snapshot.failed_snapshots) == ({"v1": "t1", "v2": "t2"}, {"v2": "c2"})


def test_a_restore_does_not_begin_with_the_safety_copies_of_an_earlier_one(store: Store) -> None:
    created = available(store.operations)
    leftovers = {"v1": "copy of another present"}
    first = following(created, Action.RESTORE)
    store.operations.begin(first, Event.RESTORE, Status.AVAILABLE, fence=True)
    restored = Settlement(Event.RESTORED, succeeded=True, temp_snapshots=leftovers, unfence=True)
    store.operations.finish(first, restored, LATER)
    second = following(created, Action.RESTORE)
    store.operations.begin(second, Event.RESTORE, Status.AVAILABLE, fence=True)
    assert store.snapshots.get(created.snapshot_id).temp_snapshots is None


def test_a_begun_operation_is_the_snapshots_latest(store: Store) -> None:
    operation = restoring(store.operations)
    snapshot = store.snapshots.get(operation.snapshot_id)
    assert (snapshot.task_id, snapshot.action, snapshot.updated_at) == (operation.id, "restore", LATER)


def test_operations_survive_the_deletion_of_their_snapshot(store: Store) -> None:
    operation = available(store.operations)
    deletion = deleting(store.operations, operation)
    assert store.operations.finish(deletion, Settlement(Event.DELETED, succeeded=True), LATER) is Status.GONE
    with pytest.raises(NotFound):
        store.snapshots.get(operation.snapshot_id)
    assert store.operations.get(deletion.id).state is OperationState.SUCCEEDED
    assert store.operations.get(operation.id).state is OperationState.SUCCEEDED
    record = FlowRecord({"InstSnapshotDeleteFlow": "SUCCESS"}, {}, {})
    store.operations.keep_record(deletion.id, record)
    assert store.operations.get(deletion.id).record == record


def test_unfinished_operations_come_oldest_first(store: Store) -> None:
    # The clock was set back in between.
    old = creating(store.operations, instance_id="a", created_at=LATER)
    young = creating(store.operations, instance_id="b", created_at=NOON)
    assert store.queue.claim(old.id, "worker", 30)
    store.operations.finish(creating(store.operations, instance_id="c"), CREATED, LATER)
    assert [operation.id for operation in store.operations.unfinished()] == [old.id, young.id]
    assert store.queue.open_among([old.id, young.id, new_id()]) == {old.id, young.id}
    assert sorted(store.operations.open_by_action()) == [("snapshot", NOON), ("snapshot", LATER)]


def test_the_last_failure_of_each_action_is_told_and_no_success(store: Store) -> None:
    for instance_id, at in (("a", NOON), ("b", LATER)):
        store.operations.finish(creating(store.operations, instance_id=instance_id), CREATE_FAILED, at)
    kept = available(store.operations, instance_id="c")
    deletion = deleting(store.operations, kept)
    assert store.operations.last_failures(NOON - timedelta(hours=1)) == {"snapshot": LATER}
    # Nor one that was before the time that is asked about.
    assert store.operations.last_failures(LATER) == {}
    store.operations.finish(deletion, Settlement(Event.DELETE_FAILED, succeeded=False, fault=FAULT), LATER)
    assert store.operations.last_failures(NOON) == {"snapshot": LATER, "delete": LATER}
