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
from stillframe.engine.execution import Execution
from stillframe.engine.persistence import FlowBooks
from stillframe.engine.progress import seconds_left
from tests.harness.faults import PATIENCE, Gate, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.world import World

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


def test_a_cut_that_copies_is_as_much_of_the_whole_as_it_copies(world: World) -> None:
    world.faults.put("cut", slowly(2.5))
    gate = world.faults.hold("complete")
    _snapshot_id, task = world.begin_create(None, world.first)
    gate.arrived()
    # Written every half second of two and a half.
    assert world.progress(task)["progress"] >= 70
    gate.let_go()
    world.settle()
    assert world.progress(task)["progress"] == 100


def test_progress_does_not_fall_when_an_attempt_begins_anew(world: World) -> None:
    world.faults.put("complete", slowly(1.5))
    snapshot_id, task = world.begin_create(None, world.first)
    with watching(world, task) as seen:
        while max(percents(seen), default=0) < 30:
            time.sleep(0.01)
        # Who serves answers until it has handed on what it was at; a service that has stopped answers nobody.
        world.service.engine.leave(PATIENCE)
    before = max(percents(seen))
    assert world.stop()
    world.start_anew()
    with watching(world, task) as again:
        world.settle()
    assert world.show(snapshot_id)["status"] == "available"
    assert percents(seen) == sorted(percents(seen))
    assert percents(again) == sorted(percents(again))
    assert min(percents(again)) >= before


def test_the_tasks_of_a_snapshot_are_told_by_the_names_that_clients_know(world: World) -> None:
    gate = world.faults.hold("complete")
    snapshot_id, task = world.begin_create()
    gate.arrived()
    during = world.progress(task)
    assert during["flow_details"] == {"InstSnapshotFlow": "RUNNING"}
    assert during["completed_tasks"] == {"creating_snapshot": "SUCCESS"}
    assert during["pending_tasks"] == {"updating_snapshots": "RUNNING", "SnapshotDone": "PENDING"}
    gate.let_go()
    world.settle()
    ended = world.progress(task)
    assert ended.pop("finished_at") == world.show(snapshot_id)["updated_at"]
    assert ended == {
        "progress": 100,
        "flow_details": {"InstSnapshotFlow": "SUCCESS"},
        "completed_tasks": {
            "creating_snapshot": "SUCCESS",
            "updating_snapshots": "SUCCESS",
            "SnapshotDone": "SUCCESS",
        },
        "pending_tasks": {},
        "fault": None,
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
    snapshot_id, task = world.begin_create()
    world.settle()
    details = world.progress(task)
    assert details["flow_details"] == {"InstSnapshotFlow": "REVERTED"}
    assert details["completed_tasks"] == {
        "creating_snapshot": "REVERTED",
        "updating_snapshots": "REVERTED",
        "SnapshotDone": "REVERTED",
    }
    assert details["pending_tasks"] == {}
    assert 0 < details["progress"] < 100
    assert details["fault"] == world.show(snapshot_id)["fault"]
    assert BROKEN.message in details["fault"]["message"]


def test_a_restore_that_failed_claims_nothing_that_was_not_done(world: World) -> None:
    snapshot_id = world.create()
    world.faults.fail("restore", BROKEN, world.second)
    task = world.begin("restore", snapshot_id)
    world.settle()
    details = world.progress(task)
    assert details["completed_tasks"] == {
        "fencing_instance": "SUCCESS",
        "creating_safety_copies": "SUCCESS",
        "recording_intent": "SUCCESS",
        f"restoring_volume_{world.first}": "SUCCESS",
        f"restoring_volume_{world.second}": "FAILURE",
        "confirming_fence": "FAILURE",
        "releasing_instance": "FAILURE",
        "updating_snapshots": "FAILURE",
        "SnapshotDone": "FAILURE",
    }
    assert details["progress"] > 0
    shown = world.show(snapshot_id)
    assert details["fault"] == shown["fault"]
    assert (details["finished_at"], shown["status"]) == (shown["updated_at"], "restore-error")
    # What comes later is told in its own place, and the first failure keeps its words.
    world.faults.mend()
    assert world.rollback(snapshot_id)["fault"] is None
    assert world.progress(task) == details


def test_a_restore_that_was_undone_has_tasks_that_were_never_begun(world: World) -> None:
    snapshot_id = world.create()
    world.faults.fail("cut", BROKEN)
    task = world.begin("restore", snapshot_id)
    world.settle()
    details = world.progress(task)
    assert world.show(snapshot_id)["status"] == "available"
    assert details["flow_details"] == {"InstRestoreFlow": "REVERTED"}
    assert details["pending_tasks"] == {}
    assert details["completed_tasks"]["SnapshotDone"] == "REVERTED"
    assert details["completed_tasks"][f"restoring_volume_{world.first}"] == "IGNORE"
    assert "SUCCESS" not in details["completed_tasks"].values()
    assert BROKEN.message in details["fault"]["message"]


def test_a_deletion_that_failed_says_so_and_why(world: World) -> None:
    snapshot_id = world.create()
    world.faults.fail("delete", BROKEN)
    task = world.begin_delete(snapshot_id)
    world.settle()
    details = world.progress(task)
    assert details["flow_details"] == {"InstSnapshotDeleteFlow": "FAILURE"}
    assert set(details["completed_tasks"].values()) == {"FAILURE"}
    assert details["pending_tasks"] == {}
    assert details["fault"] == world.show(snapshot_id)["fault"]


def test_a_restore_that_could_not_tidy_up_succeeded_and_says_what_is_left(world: World) -> None:
    snapshot_id = world.create()
    world.faults.fail("delete", BROKEN)
    task = world.begin("restore", snapshot_id)
    world.settle()
    details = world.progress(task)
    assert (details["progress"], details["flow_details"]) == (100, {"InstRestoreFlow": "SUCCESS"})
    assert details["completed_tasks"]["SnapshotDone"] == "SUCCESS"
    assert details["completed_tasks"]["updating_snapshots"] == "FAILURE"
    assert details["fault"] == world.show(snapshot_id)["fault"]


TASKS = {
    "create": ["creating_snapshot", "updating_snapshots", "SnapshotDone"],
    "delete": ["deleting_snapshots", "updating_snapshots", "SnapshotDone"],
    "restore": ["fencing_instance", "creating_safety_copies", "recording_intent", "", "", "confirming_fence"],
    "rollback": ["fencing_instance", "recording_intent", "", "", "confirming_fence", "releasing_instance"],
}


@pytest.mark.parametrize("way", TASKS)
def test_every_task_is_told_before_any_worker_has_begun(world: World, way: str) -> None:
    snapshot_id = "" if way == "create" else world.restore_error() if way == "rollback" else world.create()
    gate = world.faults.hold("complete")
    for _worker in range(2):
        world.begin_create(world.driver.add_instance("demo", "other", [1024]))
    gate.arrived(2)
    if way == "create":
        task = world.begin_create()[1]
    else:
        task = world.begin_delete(snapshot_id) if way == "delete" else world.begin(way, snapshot_id)
    details = world.progress(task)
    assert set(details["flow_details"].values()) == {"PENDING"}
    assert set(details["pending_tasks"].values()) == {"PENDING"}
    assert (details["completed_tasks"], details["finished_at"], details["fault"]) == ({}, None, None)
    for name, told in zip(TASKS[way], details["pending_tasks"], strict=False):
        assert name in told
    assert list(details["pending_tasks"])[-1] == "SnapshotDone"
    gate.let_go()
    world.settle()
    assert world.progress(task)["pending_tasks"] == {}
    assert world.progress(task)["completed_tasks"].keys() == details["pending_tasks"].keys()


def test_an_operation_that_no_worker_had_time_for_is_told_like_any_other(world: World) -> None:
    gate = world.faults.hold("complete")
    for _worker in range(2):
        world.begin_create(world.driver.add_instance("demo", "other", [1024]))
    gate.arrived(2)
    snapshot_id, task = world.begin_create()
    world.clock.jump(1_000_000)
    wait_until(lambda: world.show(snapshot_id)["status"] == "error", "the late operation was not failed")
    details = world.progress(task)
    assert details["flow_details"] == {"InstSnapshotFlow": "FAILURE"}
    assert details["completed_tasks"] == {
        "creating_snapshot": "IGNORE",
        "updating_snapshots": "IGNORE",
        "SnapshotDone": "FAILURE",
    }
    assert details["pending_tasks"] == {}
    assert "no worker was free" in details["fault"]["message"]
    gate.let_go()
    world.settle()


@pytest.mark.parametrize("way", ["create", "restore", "undone", "delete"])
@pytest.mark.parametrize("end", ["good", "bad"])
def test_who_reads_nothing_but_the_progress_sees_one_end_and_which_it_is(world: World, way: str, end: str) -> None:
    """As a client that knows IBM's page alone, and asks without pause."""
    snapshot_id, broken = "" if way == "create" else world.create(), end == "bad"
    call = {"create": "complete", "restore": "restore", "undone": "cut", "delete": "delete"}[way]
    if broken:
        world.faults.fail(call, BROKEN)
    if way == "create":
        task = world.begin_create()[1]
    else:
        task = world.begin_delete(snapshot_id) if way == "delete" else world.begin("restore", snapshot_id)
    seen = [world.progress(task)]
    while seen[-1]["pending_tasks"]:
        seen.append(world.progress(task))
    world.settle()
    last = world.progress(task)
    names = {**last["completed_tasks"], **last["pending_tasks"]}.keys()
    for details in seen[:-1]:
        assert {**details["completed_tasks"], **details["pending_tasks"]}.keys() == names
        assert details["completed_tasks"].get("SnapshotDone") is None
        assert not {"SUCCESS", "FAILURE", "REVERTED"} & set(details["flow_details"].values())
        assert (details["finished_at"], details["fault"]) == (None, None)
        assert details["progress"] < 100
    # The first look at the end is the last word.
    assert seen[-1] == last
    assert last["finished_at"] is not None
    (state,) = last["flow_details"].values()
    assert (state == "SUCCESS", last["completed_tasks"]["SnapshotDone"]) == (not broken, state)
    assert (last["progress"] == 100) is not broken
    assert (BROKEN.message in last["fault"]["message"]) if broken else last["fault"] is None


def test_an_end_that_comes_in_the_middle_of_a_look_is_told_whole(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot_id = world.create()
    world.faults.fail("restore", BROKEN)
    releasing, closing = world.faults.hold("release"), Gate()
    read, close = FlowBooks.read, Execution.close_books
    task = world.begin("restore", snapshot_id)
    releasing.arrived()

    def read_early(books: FlowBooks, operation_id: str) -> object:
        detail = read(books, operation_id)
        if threading.current_thread() is threading.main_thread():
            releasing.let_go()
            wait_until(lambda: world.show(snapshot_id)["status"] != "restoring", "the restore did not end")
        return detail

    with monkeypatch.context() as patches:
        patches.setattr(FlowBooks, "read", read_early)
        patches.setattr(Execution, "close_books", lambda *args: closing(close, args, {}))
        seen = world.progress(task)
        closing.let_go()
        world.settle()
    assert seen["pending_tasks"] == {}
    assert seen == world.progress(task)


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
