"""A restore whose answer was lost, and that the array begins after everybody has looked: what keeps it from harm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from stillframe.domain.errors import Unavailable
from stillframe.drivers.storage_virtualize import naming
from stillframe.drivers.storage_virtualize.options import Strategy
from stillframe.testing.world import a_call
from tests.conformance.worlds import ArrayWorld
from tests.lab.storage_virtualize import views
from tests.lab.storage_virtualize.objects import Refusal
from tests.storage_virtualize.conftest import Make
from tests.storage_virtualize.stories import SIZE, restored, three

LEVEL = "8.6.2.0 (build 169.4.2311)"


def lost(world: ArrayWorld, command: str, volume_id: str, copy_id: str) -> None:
    """The array has not come to the command yet, and nobody hears of it."""
    world.served.faults.put(command, "drop")
    with pytest.raises(Unavailable):
        world.storage.restore(a_call(), world.holder(volume_id), volume_id, copy_id)


def start(world: ArrayWorld, volume_id: str, copy_id: str) -> Any:
    """It comes to it now."""
    name = naming.reverse(volume_id, copy_id)
    return world.served.answer("startfcmap", name, {"prep": True, "restore": True})


@pytest.mark.parametrize("way", ["another copy", "the same copy"])
def test_a_mapping_that_is_gone_cannot_be_started(world: ArrayWorld, way: str) -> None:
    instance, made, contents = three(world)
    volume_id, other = instance.volume_ids[0], 2 if way == "another copy" else 0
    lost(world, "startfcmap", volume_id, made[0].id)
    world.storage.restore(a_call(), instance, volume_id, made[other].id)
    with pytest.raises(Refusal):
        start(world, volume_id, made[0].id)
    assert world.read(volume_id) == contents[other]


def test_a_late_restore_to_a_copy_that_was_deleted_does_nothing(world: ArrayWorld) -> None:
    instance, made, _contents = three(world)
    volume_id = instance.volume_ids[0]
    before = world.read(volume_id)
    lost(world, "startfcmap", volume_id, made[0].id)
    world.storage.delete(a_call(), made[0].reference)
    with pytest.raises(Refusal):
        start(world, volume_id, made[0].id)
    assert world.read(volume_id) == before


@dataclass(frozen=True)
class Late:
    """A restore by a snapshot of the array's own, which the array has got and not come to yet."""

    world: ArrayWorld
    volume_id: str
    parameters: dict[str, str]

    def comes(self) -> None:
        self.world.served.answer("restorefromsnapshot", None, self.parameters)


def snapshots(make: Make) -> ArrayWorld:
    return make(Strategy.SNAPSHOTS, code_level=LEVEL)


def oldest(world: ArrayWorld) -> dict[str, str]:
    """How a command calls the oldest snapshot."""
    first = min(world.served.array.snapshots.values(), key=lambda one: one.id)
    return {"snapshot": first.name, "parentuid": views.parent_uid(first)}


def late(world: ArrayWorld, volume_id: str, copy_id: str) -> Late:
    lost(world, "restorefromsnapshot", volume_id, copy_id)
    return Late(world, volume_id, {**oldest(world), "volumes": world.vdisk(volume_id)})


@pytest.mark.parametrize("way", ["another copy", "the same copy"])
def test_a_restore_by_an_array_s_own_snapshot_is_overtaken(make: Make, way: str) -> None:
    world = snapshots(make)
    instance, made, contents = three(world)
    volume_id, other = instance.volume_ids[0], 2 if way == "another copy" else 0
    command = late(world, volume_id, made[0].id)
    world.storage.restore(a_call(), instance, volume_id, made[other].id)
    assert world.read(volume_id) == contents[other]
    world.write(volume_id, 0, b"x" * SIZE)
    with pytest.raises(Refusal):
        command.comes()
    assert world.read(volume_id) == b"x" * SIZE


def test_a_restore_that_died_before_its_command_left_a_copy_that_can_be_restored_and_deleted(make: Make) -> None:
    """What the array has then is what it has where the command did not come: the name of an attempt."""
    world = snapshots(make)
    instance, made, contents = three(world)
    volume_id = instance.volume_ids[0]
    late(world, volume_id, made[0].id)
    late(world, volume_id, made[0].id)
    assert [one.id for one in world.storage.find(made[0].name.snapshot_id)] == [made[0].id]
    assert restored(world, volume_id, made[0]) == contents[0]
    late(world, volume_id, made[0].id)
    world.storage.delete(a_call(), made[0].reference)
    assert not world.storage.find(made[0].name.snapshot_id)


def test_a_restore_whose_answer_came_leaves_the_name_as_it_was(make: Make) -> None:
    """So that a process of an earlier release, which does not know the names of attempts, finds the copy, too."""
    world = snapshots(make)
    instance, made, _contents = three(world)
    before = oldest(world)
    world.storage.restore(a_call(), instance, instance.volume_ids[0], made[0].id)
    assert oldest(world) == before


def test_a_restore_is_over_though_its_name_stays(make: Make) -> None:
    world = snapshots(make)
    instance, made, contents = three(world)
    world.served.faults.put("chsnapshot", "drop", nth=2)
    assert restored(world, instance.volume_ids[0], made[0]) == contents[0]
    assert restored(world, instance.volume_ids[0], made[0]) == contents[0]


def test_a_copy_that_was_deleted_beside_others_cannot_be_restored_late(make: Make) -> None:
    world = snapshots(make)
    instance = world.add((SIZE, SIZE))
    volume_id, kept = instance.volume_ids
    copies = {one.name.volume_id: one for one in world.snapshot(instance)}
    world.write(volume_id, 0, b"x" * SIZE)
    command = late(world, volume_id, copies[volume_id].id)
    world.storage.delete(a_call(), copies[volume_id].reference)
    with pytest.raises(Refusal):
        command.comes()
    assert world.read(volume_id) == b"x" * SIZE
    world.storage.restore(a_call(), instance, kept, copies[kept].id)


def test_a_name_is_not_changed_late(make: Make) -> None:
    """It would bring a copy back that was struck off, or give the name to another snapshot with the same number."""
    world = snapshots(make)
    instance = world.add((SIZE, SIZE))
    first, second = world.snapshot(instance)
    before = oldest(world)
    world.served.faults.put("chsnapshot", "drop")
    with pytest.raises(Unavailable):
        world.storage.restore(a_call(), instance, first.name.volume_id, first.id)
    world.storage.delete(a_call(), first.reference)
    with pytest.raises(Refusal):
        world.served.answer("chsnapshot", None, {**before, "name": f"{before['snapshot'][:-14]}a{'A' * 13}B"})
    assert [one.id for one in world.storage.find(first.name.snapshot_id)] == [second.id]


def test_a_snapshot_is_not_removed_late_that_has_got_the_number_of_another(make: Make) -> None:
    world = snapshots(make)
    instance = world.add((SIZE,))
    (gone,) = world.snapshot(instance)
    command = oldest(world)
    world.served.faults.put("rmsnapshot", "drop")
    with pytest.raises(Unavailable):
        world.storage.delete(a_call(), gone.reference)
    world.storage.delete(a_call(), gone.reference)
    (copy,) = world.snapshot(instance)
    with pytest.raises(Refusal):
        world.served.answer("rmsnapshot", None, command)
    assert [one.id for one in world.storage.find(copy.name.snapshot_id)] == [copy.id]


def test_no_command_calls_a_snapshot_by_its_number(make: Make) -> None:
    world = snapshots(make)
    with world.served.lock:
        world.served.array.behaviour.snapshot_numbers = False
    instance, made, contents = three(world)
    assert restored(world, instance.volume_ids[0], made[1]) == contents[1]
    for copy in made:
        world.storage.delete(a_call(), copy.reference)
    assert not world.served.array.snapshots


def test_a_cut_that_is_made_once_more_late_is_not_taken_for_the_copy(make: Make) -> None:
    world = snapshots(make)
    instance = world.add((SIZE,))
    volume_id = instance.volume_ids[0]
    world.write(volume_id, 0, b"a" * SIZE)
    (copy,) = world.snapshot(instance)
    name = f"{oldest(world)['snapshot'][:-14]}n{'0' * 13}"
    world.write(volume_id, 0, b"b" * SIZE)
    world.served.answer("addsnapshot", None, {"name": name, "volumes": world.vdisk(volume_id), "ignorelegacy": True})
    assert restored(world, volume_id, copy) == b"a" * SIZE
    world.storage.delete(a_call(), copy.reference)
    assert not world.storage.find(copy.name.snapshot_id)
