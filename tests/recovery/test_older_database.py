"""An older state of the database is put back: nothing overwrites what was written since, whoever asks for what."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from stillframe import main
from stillframe.domain.errors import StillframeError
from stillframe.service.janitor import Janitor
from stillframe.service.witness import Witness
from stillframe.store.epochs import EpochStore
from tests.harness.faults import wait_until
from tests.harness.world import PROJECT, World
from tests.recovery.dumps import Dump

if TYPE_CHECKING:
    from pathlib import Path

    import sqlalchemy as sa


def put_back(world: World, dump: Dump) -> None:
    """Between two starts."""
    assert world.stop()
    dump.put_back()
    world.start_anew()


def refused(world: World, snapshot_id: str) -> None:
    """Whatever is asked for the snapshot, the answer is that an operator has to accept the older state first."""
    ways: list[dict[str, Any]] = [{}, {"retry": True}, {"rollback": True}]
    replies = [world.act({"vm-restore": {"instance_snapshot_id": snapshot_id, "force": True, **way}}) for way in ways]
    replies.append(world.ask("DELETE", f"/volume/v3/{PROJECT}/instance-snapshots/{snapshot_id}"))
    for reply in replies:
        assert reply.status_code == 409, reply.text
        assert "stillframe db accept-older" in reply.json["conflictingRequest"]["message"]


def is_told(world: World) -> bool:
    return "stillframe_older_database 1.0" in world.ask("GET", "/metrics").text


def epochs(world: World) -> EpochStore:
    return EpochStore(world.service.database)


def witness(world: World) -> Witness:
    return Witness(world.service.settings.state_dir, epochs(world))


def accept(world: World) -> None:
    acceptance = main.build_acceptance(world.service.settings, world.service.database, world.service.drivers)
    noticed = acceptance.notice(unnoticed=False)
    assert noticed is not None
    acceptance.accept(acceptance.plan(noticed))
    assert not is_told(world)


def test_a_restore_that_had_failed_then_is_not_retried_over_newer_data(
    world: World, database_url: sa.URL, tmp_path: Path
) -> None:
    snapshot_id = world.restore_error()
    dump = Dump(database_url, tmp_path)
    assert world.retry(snapshot_id)["status"] == "available"
    world.write(b"newest")

    put_back(world, dump)
    refused(world, snapshot_id)
    assert is_told(world)
    assert world.read() == [b"newest", b"newest"]

    accept(world)
    shown = world.show(snapshot_id)
    assert (shown["status"], shown["fault"]["code"]) == ("available", "older-database")
    assert world.fences() == (None, None)
    for way in ("retry", "rollback"):
        assert world.act({"vm-restore": {"instance_snapshot_id": snapshot_id, way: True}}).status_code == 400
    assert world.read() == [b"newest", b"newest"]
    assert world.restore(snapshot_id)["status"] == "available"
    assert world.read() != [b"newest", b"newest"]


def test_a_restore_that_was_under_way_then_is_not_carried_on(
    world: World, database_url: sa.URL, tmp_path: Path
) -> None:
    snapshot_id = world.create()
    gate = world.faults.hold("restore", world.second)
    task = world.begin("restore", snapshot_id)
    gate.arrived()
    dump = Dump(database_url, tmp_path)
    gate.let_go()
    world.settle()
    world.write(b"newest")
    world.faults.mend()

    put_back(world, dump)
    assert not world.busy()
    assert world.progress(task)["fault"]["code"] == "older-database"
    refused(world, snapshot_id)
    assert world.read() == [b"newest", b"newest"]

    accept(world)
    assert world.show(snapshot_id)["status"] == "available"
    assert world.read() == [b"newest", b"newest"]


def test_a_database_that_is_put_back_under_a_running_worker_is_noticed(
    world: World, database_url: sa.URL, tmp_path: Path
) -> None:
    snapshot_id = world.create()
    gate = world.faults.hold("restore", world.second)
    world.begin("restore", snapshot_id)
    gate.arrived()
    dump, then = Dump(database_url, tmp_path), witness(world).memory()
    gate.let_go()
    world.settle()
    world.faults.mend()
    world.write(b"newest")
    wait_until(lambda: witness(world).memory() != then, "the state folder remembers nothing new")

    dump.put_back_under_its_users()
    wait_until(lambda: epochs(world).put_back() is not None, "nobody noticed")
    assert is_told(world)
    refused(world, snapshot_id)
    assert not world.busy()
    accept(world)
    # It works on at once, in the new epoch.
    assert world.show(world.create())["status"] == "available"
    assert world.read() == [b"newest", b"newest"]


def test_copies_that_are_gone_and_copies_that_are_newer_are_told_apart(
    world: World, database_url: sa.URL, tmp_path: Path
) -> None:
    gone = world.create()
    dump = Dump(database_url, tmp_path)
    world.delete(gone)
    world.write(b"newest")
    newest = world.create()
    copies = world.copies()

    put_back(world, dump)
    assert world.show(gone)["status"] == "available"
    for _round in range(2):
        world.service.background.run(Janitor.name)
    assert world.copies() == copies
    assert "stillframe_copies_lost 2.0" in world.ask("GET", "/metrics").text
    refused(world, gone)

    accept(world)
    shown = world.show(gone)
    assert (shown["status"], shown["fault"]["code"]) == ("error", "older-database")
    assert world.is_gone(newest)
    world.service.background.run(Janitor.name)
    assert world.copies() == copies
    world.delete(gone)
    assert world.is_gone(gone)
    assert world.copies() == copies


def test_a_restore_that_has_failed_since_can_be_rolled_back(world: World, database_url: sa.URL, tmp_path: Path) -> None:
    snapshot_id = world.create()
    dump = Dump(database_url, tmp_path)
    world.write(b"newest")
    world.faults.fail("restore", StillframeError("broken"), world.second)
    assert world.restore(snapshot_id)["status"] == "restore-error"
    world.faults.mend()

    put_back(world, dump)
    assert world.show(snapshot_id)["status"] == "available"
    refused(world, snapshot_id)
    accept(world)
    assert world.show(snapshot_id)["status"] == "restore-error"
    assert world.fences() == (snapshot_id, snapshot_id)
    assert world.rollback(snapshot_id)["status"] == "available"
    assert world.read() == [b"newest", b"newest"]
    assert world.fences() == (None, None)


def test_a_snapshot_that_was_being_taken_then_is_kept(world: World, database_url: sa.URL, tmp_path: Path) -> None:
    world.write(b"one")
    gate = world.faults.hold("cut")
    snapshot_id, _task = world.begin_create()
    gate.arrived()
    dump = Dump(database_url, tmp_path)
    gate.let_go()
    world.settle()
    copies = world.copies()
    world.faults.mend()

    put_back(world, dump)
    assert world.show(snapshot_id)["status"] == "error"
    world.service.background.run(Janitor.name)
    assert world.copies() == copies
    accept(world)
    assert world.show(snapshot_id)["status"] == "available"
    world.write(b"two")
    assert world.restore(snapshot_id)["status"] == "available"
    assert world.read() == [b"one", b"one"]


@pytest.mark.parametrize("server_kind", ["sqlite"])
def test_a_copy_of_another_project_s_is_no_evidence(world: World, database_url: sa.URL, tmp_path: Path) -> None:
    gate = world.faults.hold("cut")
    creating, _task = world.begin_create()
    gate.arrived()
    dump = Dump(database_url, tmp_path)
    gate.let_go()
    world.settle()
    made = world.show(creating)["snapshots"]
    world.faults.mend()
    names = [copy.name for copy in world.driver.storage.find(None)]
    # One for a volume that has a copy already, and one for a volume that was never part of it.
    pretended = {world.driver.pretend(names[0], "theirs")}
    pretended.add(world.driver.pretend(replace(names[1], volume_id="their own"), "theirs"))

    put_back(world, dump)
    accept(world)
    shown = world.show(creating)
    assert (shown["status"], shown["snapshots"]) == ("available", made)
    world.delete(creating)
    assert world.is_gone(creating)
    assert {copy.id for copy in world.driver.storage.find(None)} == pretended


def dumped_within_a_cut(world: World, database_url: sa.URL, folder: Path) -> tuple[str, Dump]:
    """An instance snapshot that was being created when the database was dumped, and has come to its end since."""
    gate = world.faults.hold("cut")
    creating, _task = world.begin_create()
    gate.arrived()
    dump = Dump(database_url, folder)
    gate.let_go()
    world.settle()
    world.faults.mend()
    return creating, dump


@pytest.mark.parametrize("server_kind", ["sqlite"])
def test_a_cut_is_not_completed_by_a_copy_of_another_project_s(
    world: World, database_url: sa.URL, tmp_path: Path
) -> None:
    creating, dump = dumped_within_a_cut(world, database_url, tmp_path)
    _kept, lost = world.driver.storage.find(None)
    del world.driver.copies[lost.id]
    world.driver.pretend(lost.name, "theirs")

    put_back(world, dump)
    accept(world)
    assert world.show(creating)["status"] == "error"


@pytest.mark.parametrize("server_kind", ["sqlite"])
def test_neither_of_two_copies_of_one_volume_is_taken_for_the_one(
    world: World, database_url: sa.URL, tmp_path: Path
) -> None:
    creating, dump = dumped_within_a_cut(world, database_url, tmp_path)
    world.driver.pretend(world.driver.storage.find(None)[0].name, PROJECT)

    put_back(world, dump)
    accept(world)
    assert world.show(creating)["status"] == "error"


@pytest.mark.parametrize("server_kind", ["sqlite"])
def test_the_fence_of_an_instance_is_looked_for_once_for_all(
    world: World, database_url: sa.URL, tmp_path: Path
) -> None:
    others = [world.driver.add_instance(PROJECT, f"other {number}", [1]) for number in range(3)]
    for instance in (world.instance, *others):
        world.begin_create(instance)
    world.settle()
    put_back(world, Dump(database_url, tmp_path))
    epochs(world).hold("a test", None)
    world.faults.calls.clear()
    accept(world)
    assert [name for name in world.faults.calls if name.startswith("fence")] == ["fences"]


def test_snapshots_are_taken_before_it_is_accepted(world: World, database_url: sa.URL, tmp_path: Path) -> None:
    world.create()
    dump = Dump(database_url, tmp_path)
    world.create()
    put_back(world, dump)
    assert world.show(world.create())["status"] == "available"


@pytest.mark.parametrize("server_kind", ["sqlite"])
def test_a_database_that_was_not_put_back_is_never_doubted(world: World) -> None:
    for _start in range(3):
        snapshot_id = world.create()
        assert not is_told(world)
        assert world.stop()
        world.start_anew()
    assert world.restore(snapshot_id)["status"] == "available"
