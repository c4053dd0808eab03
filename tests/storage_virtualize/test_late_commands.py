"""A restore whose answer was lost, and that the array begins after everybody has looked: what keeps it from harm."""

from __future__ import annotations

from typing import Any

import pytest

from stillframe.domain.errors import Unavailable
from stillframe.drivers.storage_virtualize import naming
from stillframe.drivers.storage_virtualize.options import Strategy
from stillframe.testing.world import a_call
from tests.conformance.worlds import ArrayWorld
from tests.lab.storage_virtualize.objects import Refusal
from tests.storage_virtualize.conftest import Make
from tests.storage_virtualize.stories import SIZE, three

LEVEL = "8.6.2.0 (build 169.4.2311)"


def lost(world: ArrayWorld, command: str, volume_id: str, copy_id: str) -> None:
    """The array has not come to the command yet, and nobody hears of it."""
    world.served.faults.put(command, "drop")
    with pytest.raises(Unavailable):
        world.storage.restore(a_call(), volume_id, copy_id)


def start(world: ArrayWorld, volume_id: str, copy_id: str) -> Any:
    """It comes to it now."""
    name = naming.reverse(volume_id, copy_id)
    return world.served.answer("startfcmap", name, {"prep": True, "restore": True})


@pytest.mark.parametrize("way", ["another copy", "the same copy"])
def test_a_mapping_that_is_gone_cannot_be_started(world: ArrayWorld, way: str) -> None:
    instance, made, contents = three(world)
    volume_id, other = instance.volume_ids[0], 2 if way == "another copy" else 0
    lost(world, "startfcmap", volume_id, made[0].id)
    world.storage.restore(a_call(), volume_id, made[other].id)
    with pytest.raises(Refusal):
        start(world, volume_id, made[0].id)
    assert world.read(volume_id) == contents[other]


def test_nor_one_to_a_copy_that_was_deleted(world: ArrayWorld) -> None:
    instance, made, _contents = three(world)
    volume_id = instance.volume_ids[0]
    before = world.read(volume_id)
    lost(world, "startfcmap", volume_id, made[0].id)
    world.storage.delete(a_call(), made[0].reference)
    with pytest.raises(Refusal):
        start(world, volume_id, made[0].id)
    assert world.read(volume_id) == before


def test_an_array_s_own_snapshot_has_no_such_fence(make: Make) -> None:
    """As the documentation says: nothing of the array's objects tells a late command from one that is wanted."""
    world = make(Strategy.SNAPSHOTS, code_level=LEVEL)
    instance, made, contents = three(world)
    volume_id = instance.volume_ids[0]
    lost(world, "restorefromsnapshot", volume_id, made[0].id)
    world.storage.restore(a_call(), volume_id, made[2].id)
    world.write(volume_id, 0, b"x" * SIZE)
    oldest = {"snapshotid": str(min(world.served.array.snapshots)), "volumes": world.vdisk(volume_id)}
    world.served.answer("restorefromsnapshot", None, oldest)
    assert world.read(volume_id) == contents[0]
