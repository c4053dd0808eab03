"""Operations past their deadline: those that wait for a worker, those that go on, and those whose call hangs.

The clock of the service is moved; nobody waits for an hour.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.harness.faults import wait_until
from tests.harness.world import PROJECT, SIZE

if TYPE_CHECKING:
    from tests.harness.world import World

HOUR = 3600.0
DAY = 24 * HOUR
#: The engine looks every second for what hangs, ten seconds past the deadline.
LOOKED = 1.5
GRACE = 10.0


def wait_for_status(world: World, snapshot_id: str, status: str) -> None:
    wait_until(lambda: world.show(snapshot_id)["status"] == status, f"it never was {status}")


def is_reserved(world: World) -> bool:
    reply = world.act({"vm-snapshot": {"name": "another"}})
    assert reply.status_code in (200, 409), reply.text
    return bool(reply.status_code == 409)


def test_an_operation_whose_deadline_passes_while_it_waits_for_a_worker_changes_nothing(world: World) -> None:
    others = [world.driver.add_instance(PROJECT, "other", [SIZE]) for _worker in range(2)]
    gate = world.faults.hold("complete")
    begun = [world.begin_create(other)[0] for other in others]
    gate.arrived(2)
    waiting, task = world.begin_create()
    world.clock.jump(HOUR + 1)
    time.sleep(LOOKED)
    assert world.show(waiting)["status"] == "creating"
    world.faults.calls.clear()
    gate.let_go()
    world.settle()
    shown = world.show(waiting)
    assert (shown["status"], shown["fault"]["code"]) == ("error", "deadline-exceeded")
    assert shown["snapshots"] is None
    assert "cut" not in world.faults.calls
    assert world.progress(task)["progress"] < 100
    # Both of the others were past their deadlines, too, but had nothing left to do that could be left undone.
    assert {world.show(one)["status"] for one in begun} <= {"available", "error"}


def test_a_restore_whose_deadline_passes_while_it_waits_is_undone(world: World) -> None:
    snapshot_id = world.create()
    world.write(b"later")
    gate = world.faults.hold("complete")
    for _worker in range(2):
        world.begin_create(world.driver.add_instance(PROJECT, "other", [SIZE]))
    gate.arrived(2)
    world.begin("restore", snapshot_id)
    world.clock.jump(DAY + 1)
    gate.let_go()
    world.settle()
    shown = world.show(snapshot_id)
    assert (shown["status"], shown["fault"]["code"]) == ("available", "deadline-exceeded")
    assert world.read() == [b"later", b"later"]
    assert world.fences() == (None, None)


def prepare(world: World, way: str) -> str:
    """The snapshot that a request is about."""
    if way == "create":
        return ""
    world.write(b"before")
    if way in ("retry", "rollback"):
        return world.restore_error()
    snapshot_id = world.create()
    world.write(b"later")
    return snapshot_id


def begin(world: World, way: str, snapshot_id: str) -> str:
    if way == "create":
        return world.begin_create()[0]
    if way == "delete":
        world.begin_delete(snapshot_id)
    else:
        world.begin(way, snapshot_id)
    return snapshot_id


@pytest.mark.parametrize(
    ("way", "call", "deadline", "after"),
    [
        ("create", "cut", HOUR, "error"),
        ("create", "complete", HOUR, "error"),
        ("delete", "delete", DAY, "error-deleting"),
        ("restore", "stop", DAY, "restore-error"),
        ("restore", "complete", DAY, "restore-error"),
        ("restore", "restore", DAY, "restore-error"),
        ("retry", "restore", DAY, "restore-error"),
        ("rollback", "restore", DAY, "rollback-error"),
    ],
)
def test_an_operation_whose_call_hangs_is_settled_and_its_instance_is_reserved_until_the_call_ends(
    world: World, way: str, call: str, deadline: float, after: str
) -> None:
    about = prepare(world, way)
    gate = world.faults.hold(call)
    snapshot_id = begin(world, way, about)
    gate.arrived()
    world.clock.jump(deadline + GRACE + 1)
    wait_for_status(world, snapshot_id, after)
    shown = world.show(snapshot_id)
    assert shown["fault"]["code"] == "deadline-exceeded"
    assert "hangs" in shown["fault"]["message"]
    assert world.operation(snapshot_id)["state"] == "failed"
    assert is_reserved(world)
    assert world.ask("DELETE", f"/volume/v3/{PROJECT}/instance-snapshots/{snapshot_id}").status_code == 409
    gate.let_go()
    world.settle()
    # What came after the deadline has changed nothing about how it ended, and there is a way out.
    assert world.show(snapshot_id) == shown
    world.faults.mend()
    world.delete(snapshot_id)
    assert world.is_gone(snapshot_id)
    assert world.copies() == []
    assert world.fences() == (None, None)
    assert not is_reserved(world)


def test_a_call_that_hangs_is_given_some_seconds_past_the_deadline(world: World) -> None:
    gate = world.faults.hold("complete", late=True)
    snapshot_id, task = world.begin_create(None, world.first)
    gate.arrived()
    world.clock.jump(HOUR + GRACE - 5)
    time.sleep(LOOKED)
    assert world.show(snapshot_id)["status"] == "creating"
    gate.let_go()
    world.settle()
    # All that was left to do was to say so.
    assert world.show(snapshot_id)["status"] == "available"
    assert world.progress(task)["progress"] == 100


def test_a_restore_that_hung_can_be_retried(world: World) -> None:
    snapshot_id = prepare(world, "restore")
    gate = world.faults.hold("restore", world.second)
    world.begin("restore", snapshot_id)
    gate.arrived()
    wait_until(lambda: world.read()[0] == b"before", "the other volume was not restored")
    world.clock.jump(DAY + GRACE + 1)
    wait_for_status(world, snapshot_id, "restore-error")
    shown = world.show(snapshot_id)
    assert set(shown["failed_snapshots"]) == {world.second}
    assert set(shown["temp_snapshots"]) == {world.first, world.second}
    gate.let_go()
    world.settle()
    world.faults.mend()
    assert world.retry(snapshot_id)["status"] == "available"
    assert world.read() == [b"before", b"before"]


@pytest.mark.parametrize(("way", "after"), [("restore", "restore-error"), ("rollback", "rollback-error")])
def test_a_restore_that_ends_after_it_was_settled_leaves_the_fence_alone(world: World, way: str, after: str) -> None:
    snapshot_id = prepare(world, way)
    gate = world.faults.hold("restore", late=True)
    world.begin(way, snapshot_id)
    # The rollback puts back what the restore had touched.
    gate.arrived(2 if way == "restore" else 1)
    world.clock.jump(DAY + GRACE + 1)
    wait_for_status(world, snapshot_id, after)
    gate.let_go()
    world.settle()
    assert world.show(snapshot_id)["status"] == after
    assert world.fences() == (snapshot_id, snapshot_id)


def test_a_deletion_that_ends_after_it_was_settled_leaves_the_fence_alone(world: World) -> None:
    snapshot_id = world.restore_error()
    # They are deleted by their ids' order.
    last = max(copy.id for copy in world.driver.storage.find(None))
    gate = world.faults.hold("delete", last, late=True)
    world.begin_delete(snapshot_id)
    gate.arrived()
    world.clock.jump(DAY + GRACE + 1)
    wait_for_status(world, snapshot_id, "error-deleting")
    gate.let_go()
    world.settle()
    assert world.fences() == (snapshot_id, snapshot_id)


@pytest.mark.parametrize("call", ["cut", "complete"])
def test_a_snapshot_whose_creation_hung_keeps_no_half_made_copies(world: World, call: str) -> None:
    gate = world.faults.hold(call, late=True)
    snapshot_id, _task = world.begin_create()
    gate.arrived()
    world.clock.jump(HOUR + GRACE + 1)
    wait_for_status(world, snapshot_id, "error")
    # Whether an operation is still open is looked up once a second.
    time.sleep(LOOKED)
    gate.let_go()
    world.settle()
    assert world.copies() == []


def test_an_operation_is_settled_by_its_deadline_even_if_every_worker_hangs(world: World) -> None:
    gate = world.faults.hold("complete")
    for _worker in range(2):
        world.begin_create(world.driver.add_instance(PROJECT, "other", [SIZE]))
    gate.arrived(2)
    waiting, _task = world.begin_create()
    world.clock.jump(HOUR + GRACE + 1)
    time.sleep(2 * LOOKED)
    status = world.show(waiting)["status"]
    gate.let_go()
    assert status == "error"


def test_a_restore_that_no_worker_ever_began_is_undone_by_its_deadline(world: World) -> None:
    snapshot_id = prepare(world, "restore")
    gate = world.faults.hold("complete")
    for _worker in range(2):
        world.begin_create(world.driver.add_instance(PROJECT, "other", [SIZE]))
    gate.arrived(2)
    world.begin("restore", snapshot_id)
    world.clock.jump(DAY + GRACE + 1)
    wait_until(lambda: world.show(snapshot_id)["status"] != "restoring", "it was never settled")
    gate.let_go()
    world.settle()
    shown = world.show(snapshot_id)
    assert (shown["status"], shown["fault"]["code"]) == ("available", "deadline-exceeded")
    assert world.fences() == (None, None)
    assert world.read() == [b"later", b"later"]
