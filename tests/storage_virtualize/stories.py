"""Volumes that change between snapshots, as several tests need them."""

from __future__ import annotations

from stillframe.domain.instance import Instance
from stillframe.domain.snapshot import VolumeSnapshot
from stillframe.testing.world import MIB, a_call, pattern
from tests.conformance.worlds import ArrayWorld
from tests.lab.storage_virtualize.objects import Mapping

SIZE = 2 * MIB


def mapping_to(world: ArrayWorld, vdisk: str) -> Mapping:
    with world.served.lock:
        world.served.array.advance()
        return next(one for one in world.served.array.mappings.values() if one.target.name == vdisk)


def three(world: ArrayWorld) -> tuple[Instance, list[VolumeSnapshot], list[bytes]]:
    """Three snapshots of a volume that changes in between, oldest first, and what it was at each."""
    instance = world.add((SIZE,))
    volume_id = instance.volume_ids[0]
    made, contents = [], []
    for number in range(3):
        world.write(volume_id, number * SIZE // 4, pattern(number, SIZE // 4))
        made.append(world.snapshot(instance)[0])
        contents.append(world.read(volume_id))
    world.write(volume_id, 0, pattern(9, SIZE))
    return instance, made, contents


def restored(world: ArrayWorld, volume_id: str, copy: VolumeSnapshot) -> bytes:
    world.storage.restore(a_call(), world.holder(volume_id), volume_id, copy.id)
    return world.read(volume_id)
