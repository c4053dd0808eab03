"""What only the driver for arrays does: names, groups, mappings that depend on each other, refusals of the array."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from stillframe.domain.errors import BackendError, Damaged, NotFound, OutOfSpace, Refused, Unavailable
from stillframe.domain.snapshot import CopyKind, CopyName, CopyReference
from stillframe.drivers.storage_virtualize import naming
from stillframe.drivers.storage_virtualize.options import Strategy
from stillframe.testing.world import MIB, SNAPSHOT, Watched, a_call, pattern
from tests.conformance.worlds import ArrayWorld
from tests.storage_virtualize.conftest import Make
from tests.storage_virtualize.stories import SIZE, restored, three


class TestNames:
    def test_names_are_within_the_limits_of_an_array_and_lead_back(self) -> None:
        for kind in CopyKind:
            name = CopyName(kind, *(str(uuid.uuid4()) for _ in range(3)))
            target = naming.read_target(naming.target(name))
            assert target is not None
            volume_id = naming.volume_of(naming.forward(name))
            assert volume_id is not None
            assert target.is_of(volume_id)
            assert target.copy_name(volume_id) == name
            assert not target.is_of(str(uuid.uuid4()))
            assert target.group == naming.group_of(name)
            assert len(naming.target(name)) == 63
            assert len(naming.forward(name)) <= 63
            assert naming.group_of(name).isalnum()
            assert len(naming.group_of(name)) <= 15

    def test_names_of_others_say_nothing(self) -> None:
        assert naming.read_target("snapshot-web-0a1b2c3d") is None
        assert naming.volume_of("fcmap0") is None
        assert naming.read_target("volume-0b6f4f0e-35ab-4cf5-8f83-1d5e7b1f7a01") is None

    def test_vdisks_of_others_are_never_listed(self, world: ArrayWorld) -> None:
        for name in ("sfs-short", "sft-", "snapshot-web-0a1b2c3d"):
            world.served.array.add_vdisk(name, MIB)
        assert world.storage.find(None) == []


class TestWhatIsHandedOver:
    """The instance says which vdisk a volume is; if the declarations say something else meanwhile, nothing is done."""

    def test_a_volume_that_became_another_vdisk_meanwhile_is_left_alone(self, make: Make) -> None:
        world = make()
        seen, other = world.add((SIZE,)), world.add((SIZE,))
        volume_id, file = seen.volume_ids[0], world.declarations.folder / f"{seen.name}.toml"
        own, its = world.vdisk(volume_id), world.vdisk(other.volume_ids[0])
        world.write(volume_id, 0, pattern(1, SIZE))
        copy = world.snapshot(seen)[0]
        world.write(volume_id, 0, pattern(2, SIZE))
        world.forget(other)
        before, declared = world.served.read(its), file.read_text()
        file.write_text(declared.replace(f'"{own}"', f'"{its}"'))
        watched = Watched()
        for act in (
            lambda: world.storage.check_cut(seen, [volume_id]),
            lambda: world.storage.prepare_cut(a_call(), seen, world.names(seen)),
            lambda: world.storage.check_restore(seen, {volume_id: copy.id}),
            lambda: world.storage.restore(watched.call(), seen, volume_id, copy.id),
        ):
            with pytest.raises(Refused, match="has been changed meanwhile; repeat it"):
                act()
        assert not watched.touched
        assert (world.served.read(own), world.served.read(its)) == (pattern(2, SIZE), before)
        now = world.compute.get_instance(seen.id)
        with pytest.raises((Refused, NotFound)):
            world.storage.restore(watched.call(), now, volume_id, copy.id)
        assert (watched.touched, world.served.read(its)) == (False, before)
        file.write_text(declared)
        world.storage.restore(watched.call(), seen, volume_id, copy.id)
        assert world.served.read(own) == pattern(1, SIZE)

    def test_a_volume_of_another_instance_is_left_alone(self, make: Make) -> None:
        world = make()
        instance, other = world.add((SIZE,)), world.add((SIZE,))
        volume_id = instance.volume_ids[0]
        copy = world.snapshot(instance)[0]
        world.write(volume_id, 0, pattern(2, SIZE))
        with pytest.raises(NotFound, match=f"No volume {volume_id} is attached"):
            world.storage.restore(a_call(), other, volume_id, copy.id)
        assert world.read(volume_id) == pattern(2, SIZE)


class TestCut:
    def test_all_volumes_are_cut_by_one_command(self, world: ArrayWorld) -> None:
        instance = world.add((SIZE, SIZE, SIZE))
        names = world.names(instance)
        prepared = world.storage.prepare_cut(a_call(), instance, names)
        before = len(world.served.faults.commands)
        cut = world.storage.cut(a_call(), instance, names, prepared)
        assert world.served.faults.commands[before:] == ["lsfcconsistgrp", "startfcconsistgrp"]
        assert cut.simultaneous

    def test_nothing_of_the_group_is_left_when_the_copies_are_complete(self, world: ArrayWorld) -> None:
        world.snapshot(world.add((SIZE, SIZE)))
        assert world.served.objects()["groups"] == []

    def test_what_was_prepared_and_came_undone_is_prepared_again(self, world: ArrayWorld) -> None:
        instance = world.add((SIZE,))
        names = world.names(instance)
        prepared = world.storage.prepare_cut(a_call(), instance, names)
        world.client.run("stopfcconsistgrp", naming.group_of(names[0]))
        world.write(instance.volume_ids[0], 0, pattern(1, SIZE))
        made = world.storage.cut(a_call(), instance, names, prepared).snapshots[0]
        world.write(instance.volume_ids[0], 0, pattern(2, SIZE))
        world.storage.complete(a_call(), made.reference)
        assert restored(world, instance.volume_ids[0], made) == pattern(1, SIZE)

    def test_what_was_prepared_and_never_cut_can_be_deleted(self, world: ArrayWorld) -> None:
        instance = world.add((SIZE, SIZE))
        before = world.served.objects()
        world.storage.prepare_cut(a_call(), instance, world.names(instance, SNAPSHOT))
        for copy in world.storage.find(SNAPSHOT):
            world.storage.delete(a_call(), copy.reference)
        assert world.served.objects() == before

    @pytest.mark.parametrize("failures", [3, 1000])
    def test_a_cache_that_is_not_written_out_is_tried_again_but_not_for_ever(
        self, world: ArrayWorld, failures: int
    ) -> None:
        instance = world.add((SIZE,))
        before = world.served.objects()
        world.served.array.behaviour.flush_failures = failures
        if failures < 5:
            assert world.snapshot(instance, SNAPSHOT)[0].ready
        else:
            with pytest.raises(BackendError, match="event log"):
                world.snapshot(instance, SNAPSHOT)
        for copy in world.storage.find(SNAPSHOT):
            world.storage.delete(a_call(), copy.reference)
        assert world.served.objects() == before

    @pytest.mark.parametrize("strategy", [Strategy.FLASHCOPY, Strategy.SNAPSHOTS])
    @pytest.mark.parametrize("how_far", ["prepared", "cut", "completed"])
    def test_copies_of_one_cut_can_be_deleted_beside_each_other(
        self, make: Make, strategy: Strategy, how_far: str
    ) -> None:
        world = make(strategy, code_level="8.6.2.0 (build 169.4.2311)")
        instance = world.add((SIZE,) * 6)
        before = world.served.objects()
        for _ in range(3):
            names = world.names(instance, SNAPSHOT)
            prepared = world.storage.prepare_cut(a_call(), instance, names)
            if how_far != "prepared":
                world.storage.cut(a_call(), instance, names, prepared)
            ids = [copy.id for copy in world.storage.find(SNAPSHOT)]
            with ThreadPoolExecutor(6) as pool:
                if how_far == "completed":
                    list(pool.map(lambda copy_id: world.storage.complete(a_call(), CopyReference(copy_id)), ids))
                list(pool.map(lambda copy_id: world.storage.delete(a_call(), CopyReference(copy_id)), ids))
            time.sleep(0.05)
            assert world.storage.find(None) == []
            assert world.served.objects() == before

    def test_a_mirrored_volume_is_copied_into_the_pool_of_its_primary_copy(self, world: ArrayWorld) -> None:
        instance = world.add((SIZE,))
        source = world.served.array.vdisk(world.vdisk(instance.volume_ids[0]))
        source.mirrored, source.pool = True, "fast"
        copy = world.snapshot(instance)[0]
        assert world.served.array.vdisk(naming.target(copy.name)).pool == "fast"

    def test_no_room_is_said_so(self, world: ArrayWorld) -> None:
        instance = world.add((SIZE,))
        world.served.array.limits.pool_capacity = SIZE + 1
        with pytest.raises(OutOfSpace, match="CMMVC8710E"):
            world.snapshot(instance)

    def test_a_copy_that_was_stopped_on_the_array_is_damaged(self, world: ArrayWorld) -> None:
        instance = world.add((SIZE,))
        names = world.names(instance)
        made = world.storage.cut(a_call(), instance, names).snapshots[0]
        world.client.run("stopfcconsistgrp", naming.group_of(names[0]))
        with pytest.raises(Damaged, match="stopped"):
            world.storage.complete(a_call(), made.reference)


class TestRefusals:
    """Before anything is touched: the objects of the array are the same afterwards."""

    @pytest.mark.parametrize("what", ["remote copy", "running target", "remote-copy mapping"])
    def test_volumes_that_must_not_be_touched_are_not(self, world: ArrayWorld, what: str) -> None:
        instance = world.add((SIZE,))
        volume_id = instance.volume_ids[0]
        copy = world.snapshot(instance)[0]
        vdisk = world.served.array.vdisk(world.vdisk(volume_id))
        if what == "remote copy":
            vdisk.remote_copy = "rcrel0"
        else:
            world.served.array.add_vdisk("golden", SIZE)
            world.write(volume_id, 0, pattern(3, SIZE))
            ends = {"source": "golden", "target": vdisk.name}
            if what == "remote-copy mapping":
                ends = {"source": vdisk.name, "target": "golden"}
            world.client.run("mkfcmap", name="foreign", copyrate=1, **ends)
            if what == "remote-copy mapping":
                next(one for one in world.served.array.mappings.values() if one.name == "foreign").rc_controlled = True
            world.client.run("startfcmap", "foreign", prep=True, restore=True)
            world.served.array.behaviour.speed = 0.001
        before = world.served.objects()
        with pytest.raises(Refused, match=vdisk.name):
            world.storage.check_cut(instance, [volume_id])
        with pytest.raises(Refused, match=vdisk.name):
            world.storage.check_restore(instance, {volume_id: copy.id})
        with pytest.raises(Refused):
            world.storage.restore(a_call(), instance, volume_id, copy.id)
        assert world.served.objects() == before

    def test_a_clone_that_is_through_is_let_go_by_a_restore(self, world: ArrayWorld) -> None:
        instance = world.add((SIZE,))
        volume_id = instance.volume_ids[0]
        world.served.array.add_vdisk("golden", SIZE)
        world.client.run("mkfcmap", name="foreign", copyrate=150, source="golden", target=world.vdisk(volume_id))
        world.client.run("startfcmap", "foreign", prep=True)
        time.sleep(0.1)
        world.write(volume_id, 0, pattern(1, SIZE))
        copy = world.snapshot(instance)[0]
        world.write(volume_id, 0, pattern(2, SIZE))
        assert restored(world, volume_id, copy) == pattern(1, SIZE)

    def test_a_reverse_mapping_that_cannot_be_started_is_taken_away(self, world: ArrayWorld) -> None:
        instance, made, _contents = three(world)
        before = world.served.objects()
        world.served.faults.put("startfcmap", "fail", code="CMMVC6296E")
        with pytest.raises(BackendError, match="CMMVC6296E"):
            world.storage.restore(a_call(), instance, instance.volume_ids[0], made[0].id)
        assert world.served.objects() == before
        assert world.read(instance.volume_ids[0]) == pattern(9, SIZE)


class TestOutages:
    def test_an_array_that_does_not_answer_is_unavailable(self, world: ArrayWorld) -> None:
        instance = world.add((SIZE,))
        world.served.faults.unreachable(60)
        for look in (
            lambda: world.storage.find(None),
            lambda: world.storage.check_cut(instance, instance.volume_ids),
        ):
            with pytest.raises(Unavailable):
                look()
        assert [one.status for one in world.storage.list_volumes(None)] == ["unknown"]
        assert world.storage.get_volume(instance.volume_ids[0]).status == "unknown"
