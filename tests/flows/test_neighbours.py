"""What other requests may do while an operation runs, or while an instance is fenced."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from stillframe.domain.errors import BackendError, Refused
from stillframe.domain.instance import PowerState
from stillframe.domain.snapshot import CopyKind
from stillframe.drivers.call import Call
from tests.harness.world import PROJECT, SIZE

if TYPE_CHECKING:
    from tests.harness.world import World

BROKEN = BackendError("it broke, as the test wished")


def _unbound() -> Call:
    return Call("nobody's", "nobody's", lambda: None, lambda _done, _total: None)


def create(world: World, instance: Any = None) -> Any:
    return world.act({"vm-snapshot": {"name": "another"}}, instance)


def test_an_instance_is_not_affected_by_what_happens_to_another(world: World) -> None:
    other = world.driver.add_instance(PROJECT, "other", [SIZE], PowerState.ACTIVE)
    fenced = world.restore_error()
    gate = world.faults.hold("restore", world.second)
    world.begin("retry", fenced)
    gate.arrived()
    made = create(world, other)
    assert made.status_code == 200
    snapshot_id = made.json["instance_snapshot"]["id"]
    gate.let_go()
    world.settle()
    assert world.show(snapshot_id)["status"] == "available"
    assert world.show(fenced)["status"] == "available"
    assert world.driver.instances[other.id].power_state is PowerState.ACTIVE


def test_many_operations_at_once_on_one_instance_are_one_operation(world: World) -> None:
    ready, replies = threading.Barrier(8), list[int]()

    def ask() -> None:
        ready.wait()
        replies.append(create(world).status_code)

    gate = world.faults.hold("complete")
    threads = [threading.Thread(target=ask) for _number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(replies) == [200] + [409] * 7
    gate.let_go()
    world.settle()
    assert len(world.copies()) == 2


def test_many_requests_at_once_for_one_snapshot_are_one_operation(world: World) -> None:
    snapshot_id = world.create()
    ready, replies = threading.Barrier(6), list[int]()

    def ask(delete: bool) -> None:  # noqa: FBT001
        ready.wait()
        if delete:
            reply = world.ask("DELETE", f"/volume/v3/{PROJECT}/instance-snapshots/{snapshot_id}")
        else:
            reply = world.act({"vm-restore": {"instance_snapshot_id": snapshot_id}})
        replies.append(reply.status_code)

    gates = [world.faults.hold("delete"), world.faults.hold("restore")]
    threads = [threading.Thread(target=ask, args=(number % 2 == 0,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(reply < 300 for reply in replies) == 1
    # Those that saw it before it changed were too late, and those after it came out of turn.
    assert {reply for reply in replies if reply >= 300} <= {400, 409}
    for gate in gates:
        gate.let_go()
    world.settle()


@pytest.mark.parametrize("way", ["restore", "retry", "rollback", "delete"])
def test_a_snapshot_cannot_be_changed_twice_at_a_time(world: World, way: str) -> None:
    snapshot_id = world.create()
    gate = world.faults.hold("restore")
    world.begin("restore", snapshot_id)
    gate.arrived()
    if way == "delete":
        reply = world.ask("DELETE", f"/volume/v3/{PROJECT}/instance-snapshots/{snapshot_id}")
    else:
        ways = {} if way == "restore" else {way: True}
        reply = world.act({"vm-restore": {"instance_snapshot_id": snapshot_id, **ways}})
    assert (reply.status_code, "try again" in reply.text) == (409, True)
    gate.let_go()
    world.settle()
    assert world.show(snapshot_id)["status"] == "available"


def test_another_snapshot_of_a_busy_instance_cannot_be_restored_or_deleted(world: World) -> None:
    snapshot_id, other = world.create(), world.create()
    gate = world.faults.hold("restore")
    world.begin("restore", snapshot_id)
    gate.arrived()
    assert world.act({"vm-restore": {"instance_snapshot_id": other}}).status_code == 409
    assert world.ask("DELETE", f"/volume/v3/{PROJECT}/instance-snapshots/{other}").status_code == 409
    assert create(world).status_code == 409
    gate.let_go()
    world.settle()
    assert world.show(other)["status"] == "available"


def test_a_fenced_instance_takes_no_new_snapshot_and_no_other_restore_but_loses_snapshots(world: World) -> None:
    other = world.create()
    snapshot_id = world.restore_error()
    assert create(world).status_code == 409
    assert world.act({"vm-restore": {"instance_snapshot_id": other}}).status_code == 409
    world.delete(other)
    assert world.is_gone(other)
    assert world.fences() == (snapshot_id, snapshot_id)
    assert world.retry(snapshot_id)["status"] == "available"
    assert create(world).status_code == 200


@pytest.mark.parametrize("call", ["restore", "complete"])
def test_a_fenced_instance_cannot_be_started(world: World, call: str) -> None:
    snapshot_id = world.create()
    gate = world.faults.hold(call)
    world.begin("restore", snapshot_id)
    gate.arrived()
    reply = world.ask("POST", f"/compute/v2.1/{PROJECT}/servers/{world.instance.id}/action", {"os-start": None})
    assert reply.status_code == 409
    with pytest.raises(Refused):
        world.service.drivers.compute.start(_unbound(), world.instance.id)
    gate.let_go()
    world.settle()
    world.service.drivers.compute.start(_unbound(), world.instance.id)
    assert world.driver.instances[world.instance.id].power_state is PowerState.ACTIVE


def test_a_snapshot_has_its_first_change_at_the_end_of_its_creation(world: World) -> None:
    gate = world.faults.hold("complete")
    snapshot_id, _task = world.begin_create()
    gate.arrived()
    before = world.show(snapshot_id)
    assert before["updated_at"] is None
    changes = {"instance-snapshot": {"name": "renamed", "description": "meanwhile"}}
    path = f"/volume/v3/{PROJECT}/instance-snapshots/{snapshot_id}"
    assert world.ask("PUT", path, changes).status_code == 409
    assert world.show(snapshot_id) == before
    gate.let_go()
    world.settle()
    created_at = world.show(snapshot_id)["updated_at"]
    assert world.ask("PUT", path, changes).status_code == 200
    shown = world.show(snapshot_id)
    assert (shown["name"], shown["description"], shown["updated_at"] > created_at) == ("renamed", "meanwhile", True)


def test_an_instance_that_is_started_before_a_restore_without_force_begins_is_left_alone(world: World) -> None:
    snapshot_id = world.create()
    world.write(b"later")
    # The request is accepted while the instance is off; its operation waits for a worker.
    blocked = world.faults.hold("complete")
    for _worker in range(2):
        create(world, world.driver.add_instance(PROJECT, "other", [SIZE]))
    blocked.arrived(2)
    world.begin("restore", snapshot_id)
    world.driver.set_power_state(world.instance.id, PowerState.ACTIVE)
    blocked.let_go()
    world.settle()
    shown = world.show(snapshot_id)
    assert (shown["status"], shown["fault"]["code"]) == ("available", "refused")
    assert world.read() == [b"later", b"later"]
    assert world.driver.instances[world.instance.id].power_state is PowerState.ACTIVE
    assert world.fences() == (None, None)


@pytest.mark.parametrize("kind", list(CopyKind))
def test_a_copy_that_lies_in_another_project_under_a_name_of_ours_is_left_alone(world: World, kind: CopyKind) -> None:
    snapshot_id = world.restore_error()
    names = [copy.name for copy in world.driver.storage.find(None) if copy.name.kind is kind]
    pretended = {world.driver.pretend(name, "theirs") for name in names}
    world.faults.fail("delete", BROKEN, times=1)
    for act in (world.retry, world.restore, world.restore):
        shown = act(snapshot_id)
        assert shown["status"] == "available"
        assert not pretended & {*(shown["snapshots"] or {}).values(), *(shown["temp_snapshots"] or {}).values()}
    world.delete(snapshot_id)
    assert world.is_gone(snapshot_id)
    assert {copy.id for copy in world.driver.storage.find(None)} == pretended
