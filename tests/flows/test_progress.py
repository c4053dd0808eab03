"""What a client that asks without pause sees of an operation's progress."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from stillframe.domain.errors import BackendError
from stillframe.engine.progress import seconds_left

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.flows.world import World

BROKEN = BackendError("it broke, as the test wished")
STEPS = 10


def slowly(seconds: float) -> Callable[..., Any]:
    """A call that takes its time and reports how far it is, as a driver does that copies bytes."""

    def act(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for step in range(STEPS):
            args[0].check()
            args[0].report(step, STEPS)
            time.sleep(seconds / STEPS)
        return method(*args, **kwargs)

    return act


@contextmanager
def watching(world: World, task: str) -> Iterator[list[tuple[int, str]]]:
    """Ask for the progress again and again; yields percent and the snapshot's state of the flow, as they are seen."""
    seen: list[tuple[int, str]] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            details = world.progress(task)
            seen.append((details["progress"], next(iter(details["flow_details"].values()), "")))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def percents(seen: list[tuple[int, str]]) -> list[int]:
    return [percent for percent, _state in seen]


@pytest.mark.parametrize(("call", "way"), [("complete", "create"), ("restore", "restore"), ("restore", "rollback")])
def test_progress_moves_with_the_bytes_never_falls_and_is_100_only_at_the_end(
    world: World, call: str, way: str
) -> None:
    snapshot_id = world.create() if way == "restore" else world.restore_error() if way == "rollback" else ""
    world.faults.put(call, slowly(2.5))
    if way == "create":
        snapshot_id, task = world.begin_create(None, world.first)
    else:
        task = world.begin(way, snapshot_id)
    with watching(world, task) as seen:
        while world.show(snapshot_id)["status"] != "available":
            time.sleep(0.01)
            assert 100 not in percents(seen) or world.show(snapshot_id)["status"] == "available"
        world.settle()
    assert percents(seen) == sorted(percents(seen))
    assert world.progress(task)["progress"] == 100
    # One look may come between the row and the flow, which says so a moment before; never the other way round.
    assert all(state == "SUCCESS" for percent, state in seen if percent == 100)
    # What is written every half second of two and a half.
    assert len({percent for percent in percents(seen) if 0 < percent < 100}) >= 3, sorted(set(percents(seen)))


def test_progress_does_not_fall_when_an_attempt_begins_anew(world: World) -> None:
    world.faults.put("complete", slowly(1.5))
    snapshot_id, task = world.begin_create(None, world.first)
    with watching(world, task) as seen:
        while max(percents(seen), default=0) < 30:
            time.sleep(0.01)
        assert world.stop()
    before = max(percents(seen))
    world.start_anew()
    with watching(world, task) as again:
        world.settle()
    assert world.show(snapshot_id)["status"] == "available"
    assert percents(seen) == sorted(percents(seen))
    assert percents(again) == sorted(percents(again))
    assert min(percents(again)) >= before


def test_the_tasks_of_a_snapshot_are_told_by_the_names_that_clients_know(world: World) -> None:
    gate = world.faults.hold("complete")
    _snapshot_id, task = world.begin_create()
    gate.arrived()
    during = world.progress(task)
    assert during["flow_details"] == {"InstSnapshotFlow": "RUNNING"}
    assert during["completed_tasks"] == {"creating_snapshot": "SUCCESS"}
    assert during["pending_tasks"] == {"updating_snapshots": "RUNNING", "SnapshotDone": "PENDING"}
    gate.let_go()
    world.settle()
    assert world.progress(task) == {
        "progress": 100,
        "flow_details": {"InstSnapshotFlow": "SUCCESS"},
        "completed_tasks": {
            "creating_snapshot": "SUCCESS",
            "updating_snapshots": "SUCCESS",
            "SnapshotDone": "SUCCESS",
        },
        "pending_tasks": {},
    }


def test_the_time_that_is_left_is_estimated_by_the_pace_so_far(world: World) -> None:
    gate = world.faults.hold("complete")
    snapshot_id, _task = world.begin_create()
    gate.arrived()
    task_id = world.show(snapshot_id)["task_uri"].partition("task_id=")[2].partition("&")[0]
    operation = world.service.snapshots.operations.get(task_id)
    later = operation.created_at + timedelta(seconds=100)
    assert seconds_left(replace(operation, progress=25), later) == 300
    assert seconds_left(replace(operation, progress=0), later) is None
    gate.let_go()
    world.settle()
    ended = world.service.snapshots.operations.get(task_id)
    assert seconds_left(ended, later) is None


def test_a_volume_that_was_not_restored_is_told_among_the_tasks(world: World) -> None:
    snapshot_id = world.create()
    world.faults.fail("restore", BROKEN, world.second)
    task = world.begin("restore", snapshot_id)
    world.settle()
    details = world.progress(task)
    assert details["completed_tasks"][f"restoring_volume_{world.first}"] == "SUCCESS"
    assert details["completed_tasks"][f"restoring_volume_{world.second}"] == "FAILURE"
    assert details["flow_details"] == {"InstRestoreFlow": "FAILURE"}
    assert details["progress"] < 100
    assert details["pending_tasks"] == {}


def test_a_snapshot_that_failed_tells_what_was_taken_back(world: World) -> None:
    world.faults.fail("complete", BROKEN)
    _snapshot_id, task = world.begin_create()
    world.settle()
    details = world.progress(task)
    assert details["flow_details"] == {"InstSnapshotFlow": "REVERTED"}
    assert details["completed_tasks"] == {"creating_snapshot": "REVERTED", "updating_snapshots": "REVERTED"}
    assert details["progress"] < 100


def test_a_deletion_can_still_be_asked_about_when_its_snapshot_is_gone(world: World) -> None:
    snapshot_id = world.create()
    task = world.begin_delete(snapshot_id)
    world.settle()
    assert world.is_gone(snapshot_id)
    details = world.progress(task)
    assert details["progress"] == 100
    assert details["flow_details"] == {"InstSnapshotDeleteFlow": "SUCCESS"}
    assert details["completed_tasks"]["SnapshotDone"] == "SUCCESS"
    world.stop()
    world.start_anew()
    assert world.progress(task) == details


def test_an_operation_that_waits_for_a_worker_is_at_nothing(world: World) -> None:
    gate = world.faults.hold("complete")
    for _worker in range(2):
        world.begin_create(world.driver.add_instance("demo", "other", [1024]))
    gate.arrived(2)
    _snapshot_id, task = world.begin_create()
    assert world.progress(task)["progress"] == 0
    gate.let_go()
    world.settle()
    assert world.progress(task)["progress"] == 100
