"""Attempts that break off, because the store fails or the service stops, and what becomes of their operations."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from stillframe.domain.errors import BackendError
from stillframe.domain.instance import PowerState
from tests.harness.faults import wait_until
from tests.harness.world import PROJECT, SIZE, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BROKEN = BackendError("it broke, as the test wished")
FLOW_BOOKS = "INSERT INTO logbooks"
TASK_BOOKS = "UPDATE atomdetails"


def test_an_attempt_that_the_store_breaks_off_is_made_again(world: World) -> None:
    with world.broken_store(FLOW_BOOKS, times=1) as failed:
        snapshot_id, task = world.begin_create()
        world.settle()
    assert len(failed) == 1
    assert world.show(snapshot_id)["status"] == "available"
    assert world.attempts(task) == 2
    assert world.progress(task)["progress"] == 100


@pytest.mark.parametrize("statement", ["UPDATE fences", "UPDATE operations SET committed"])
def test_a_store_that_is_away_for_a_moment_is_no_reason_for_an_operation_to_fail(world: World, statement: str) -> None:
    world.write(b"before")
    snapshot_id = world.create()
    world.write(b"after")
    with world.broken_store(statement, times=3) as failed:
        world.restore(snapshot_id)
    assert len(failed) == 3
    assert world.show(snapshot_id)["status"] == "available"
    assert world.show(snapshot_id)["fault"] is None
    assert world.read() == [b"before", b"before"]


@pytest.mark.parametrize("way", ["restore", "rollback", "delete"])
def test_an_attempt_that_breaks_off_between_its_tasks_goes_on_from_there(world: World, way: str) -> None:
    world.write(b"before")
    snapshot_id = world.restore_error() if way == "rollback" else world.create()
    call = "delete" if way == "delete" else "restore"
    gate = world.faults.hold(call)
    task = world.begin_delete(snapshot_id) if way == "delete" else world.begin(way, snapshot_id)
    gate.arrived()
    with world.broken_store(TASK_BOOKS, times=1, error=OSError("gone")) as failed:
        gate.let_go()
        world.settle()
    assert len(failed) == 1
    assert world.attempts(task) == 2
    if way == "delete":
        assert world.is_gone(snapshot_id)
        assert world.copies() == []
    else:
        shown = world.show(snapshot_id)
        assert (shown["status"], shown["temp_snapshots"], shown["failed_snapshots"]) == ("available", None, None)
        assert world.copies("safety") == []
        assert world.fences() == (None, None)
    assert world.progress(task)["progress"] == 100


def test_an_operation_is_given_up_after_so_many_attempts_each_later_than_the_one_before(world: World) -> None:
    begun = time.monotonic()
    with world.broken_store(FLOW_BOOKS) as failed:
        snapshot_id, task = world.begin_create()
        world.settle()
    # Half a second, then a second; the engine looks every second.
    assert time.monotonic() - begun >= 1.5
    assert len(failed) == 2
    shown = world.show(snapshot_id)
    assert (shown["status"], shown["fault"]["code"]) == ("error", "internal-error")
    assert shown["fault"]["message"] == "Given up: 2 attempts broke off without coming to an end."
    assert world.progress(task)["progress"] < 100
    world.delete(snapshot_id)
    assert world.is_gone(snapshot_id)


def test_a_restore_that_is_given_up_before_it_began_is_undone(world: World) -> None:
    world.write(b"before")
    snapshot_id = world.create()
    world.write(b"later")
    world.driver.set_power_state(world.instance.id, PowerState.ACTIVE)
    with world.broken_store(FLOW_BOOKS):
        shown = world.restore(snapshot_id, force=True)
    assert (shown["status"], shown["fault"]["code"]) == ("available", "internal-error")
    assert (shown["temp_snapshots"], shown["failed_snapshots"]) == (None, None)
    assert world.read() == [b"later", b"later"]
    assert world.fences() == (None, None)
    assert world.driver.instances[world.instance.id].power_state is PowerState.ACTIVE
    shown = world.restore(snapshot_id, force=True)
    assert (shown["status"], shown["fault"]) == ("available", None)
    assert world.read() == [b"before", b"before"]
    assert world.copies("safety") == []


def test_an_end_that_cannot_be_stored_leaves_a_status_with_a_way_out(world: World) -> None:
    with world.broken_store("UPDATE instance_snapshots", times=1):
        snapshot_id = world.create()
    shown = world.show(snapshot_id)
    assert shown["status"] in ("available", "error")
    assert len(world.copies()) == (2 if shown["status"] == "available" else 0)
    world.delete(snapshot_id)
    assert world.is_gone(snapshot_id)


def test_one_failure_of_the_store_does_not_fail_a_snapshot_that_was_made(world: World) -> None:
    with world.broken_store("UPDATE instance_snapshots", times=1):
        snapshot_id = world.create()
    assert world.show(snapshot_id)["status"] == "available"


def test_one_failure_of_the_store_does_not_fail_a_restore_that_was_made(world: World) -> None:
    snapshot_id = world.create()
    world.driver.set_power_state(world.instance.id, PowerState.ACTIVE)
    gate = world.faults.hold("delete")
    world.begin("restore", snapshot_id, force=True)
    gate.arrived()
    with world.broken_store("UPDATE instance_snapshots", times=1):
        gate.let_go()
        world.settle()
    shown = world.show(snapshot_id)
    if shown["status"] == "restore-error":
        # Then the safety copies that it names can be rolled back to, and nobody can start the instance.
        assert world.copies("safety") == sorted(shown["temp_snapshots"] or ())
        assert world.fences() == (snapshot_id, snapshot_id)
    else:
        assert shown["status"] == "available"


def test_an_attempt_that_breaks_off_after_its_end_was_stored_is_shown_as_ended(world: World) -> None:
    with world.broken_store(TASK_BOOKS, error=OSError("gone"), after="UPDATE operations SET state=?, finished_at"):
        snapshot_id, task = world.begin_create()
        world.settle()
    assert world.show(snapshot_id)["status"] == "available"
    details = world.progress(task)
    assert details["flow_details"] == {"InstSnapshotFlow": "SUCCESS"}
    assert details["completed_tasks"].get("SnapshotDone") == "SUCCESS"
    assert details["pending_tasks"] == {}


def test_what_runs_when_the_service_stops_is_resumed_by_the_next(world: World) -> None:
    world.write(b"before")
    snapshot_id = world.create()
    world.write(b"later")
    gate = world.faults.hold("restore", world.second)
    task = world.begin("restore", snapshot_id)
    gate.arrived()
    wait_until(lambda: world.read()[0] == b"before", "the other volume was not restored")
    assert not world.stop(0.2)
    gate.let_go()
    wait_until(lambda: world.stop(0.1), "the call that was let go did not end")
    world.faults.mend()
    world.faults.calls.clear()
    world.start_anew()
    world.settle()
    shown = world.show(snapshot_id)
    assert (shown["status"], shown["fault"], shown["temp_snapshots"]) == ("available", None, None)
    assert world.read() == [b"before", b"before"]
    assert world.copies("safety") == []
    # The present was copied once, before the first volume was touched, and never again.
    assert "cut" not in world.faults.calls
    assert world.progress(task)["progress"] == 100


def test_what_waits_when_the_service_stops_is_taken_up_by_the_next(world: World) -> None:
    gate = world.faults.hold("complete")
    others = [world.driver.add_instance("demo", "other", [1024]) for _worker in range(2)]
    begun = [world.begin_create(other)[0] for other in others]
    gate.arrived(2)
    waiting, _task = world.begin_create()
    assert not world.stop(0.2)
    assert world.show(waiting)["status"] == "creating"
    gate.let_go()
    wait_until(lambda: world.stop(0.1), "the calls that were let go did not end")
    assert world.show(waiting)["status"] == "creating"
    world.start_anew()
    world.settle()
    assert [world.show(one)["status"] for one in (*begun, waiting)] == ["available"] * 3


def test_what_waits_for_a_thread_when_the_service_stops_is_done_by_the_next(tmp_path: Path) -> None:
    world = World(tmp_path, workers=2, volume_workers=1)
    world.instance = world.driver.add_instance(PROJECT, "wide", [SIZE] * 3)
    snapshot_id = world.create()
    for volume_id in world.instance.volume_ids:
        world.driver.write(volume_id, 0, b"later")
    turns = threading.Semaphore(0)

    def restore(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        assert turns.acquire(timeout=30)
        return method(*args, **kwargs)

    world.faults.put("restore", restore)
    world.begin("restore", snapshot_id)
    wait_until(lambda: world.faults.calls.count("restore") == 1, "no volume was put back")
    stopping = threading.Thread(target=world.stop)
    stopping.start()
    time.sleep(0.3)
    # The first ends, the second is under way, and the third one waits for the only thread.
    turns.release()
    time.sleep(0.3)
    turns.release()
    stopping.join()
    volumes = world.instance.volume_ids
    left = [volume_id for volume_id in volumes if world.driver.read(volume_id, 0, 5) == b"later"]
    assert len(left) == 1
    assert world.show(snapshot_id)["status"] == "restoring"
    world.faults.mend()
    world.faults.calls.clear()
    world.start_anew()
    world.settle()
    shown = world.show(snapshot_id)
    assert (shown["status"], shown["fault"], shown["temp_snapshots"]) == ("available", None, None)
    assert [world.driver.read(volume_id, 0, 5) for volume_id in volumes] == [bytes(5)] * 3
    # Taken now, the safety copies would be of volumes of which two have been put back already.
    assert "cut" not in world.faults.calls
    world.stop()


@pytest.mark.lasts(60)
def test_a_service_that_is_started_anew_frees_the_instance_of_a_call_that_hung(world: World) -> None:
    gate = world.faults.hold("complete")
    snapshot_id, _task = world.begin_create()
    gate.arrived()
    world.clock.jump(3600 + 11)
    wait_until(lambda: world.show(snapshot_id)["status"] == "error", "it was never settled")
    world.stop(0.1)
    world.faults.mend()
    world.start_anew()
    world.settle()
    assert world.show(world.create())["status"] == "available"
    gate.let_go()


def test_a_failure_of_one_attempt_is_told_as_it_was_after_a_new_start(world: World) -> None:
    world.faults.fail("complete", BROKEN)
    gate = world.faults.hold("delete")
    snapshot_id, _task = world.begin_create()
    gate.arrived()
    # It is taken back at this moment; the books say why, and the next service reads it there.
    with world.broken_store(TASK_BOOKS, error=OSError("gone")):
        gate.let_go()
        assert world.stop()
    world.faults.mend()
    world.start_anew()
    world.settle()
    shown = world.show(snapshot_id)
    assert (shown["status"], shown["fault"]["code"]) == ("error", "backend-error")
    assert shown["fault"]["message"] == BROKEN.message
    assert world.copies() == []
