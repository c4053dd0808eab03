"""What becomes of copies on an array: restored, deleted, depended on, in any order and on several arrays."""

from __future__ import annotations

import random
import threading
import time

import pytest

from stillframe.domain.errors import BackendError, NotSupported, Refused
from stillframe.domain.snapshot import CopyReference
from stillframe.drivers.qemu.declaration import DeclaredVdisk
from stillframe.drivers.storage_virtualize import naming
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.arrays import Arrays
from stillframe.drivers.storage_virtualize.client import Client
from stillframe.drivers.storage_virtualize.options import ArrayOptions, Strategy
from stillframe.drivers.storage_virtualize.storage import StorageVirtualize
from stillframe.drivers.storage_virtualize.volumes import DeclaredVolumes
from stillframe.testing.world import SNAPSHOT, Watched, a_call, pattern
from tests.conformance.worlds import ArrayWorld
from tests.lab.storage_virtualize.array import Array as Simulated
from tests.lab.storage_virtualize.objects import Behaviour
from tests.lab.storage_virtualize.server import PASSWORD, USER, simulated
from tests.storage_virtualize.conftest import Make
from tests.storage_virtualize.stories import SIZE, mapping_to, restored, three


class TestRestore:
    def test_a_lingering_mapping_is_cleared_away(self, make: Make) -> None:
        world = make(linger=True)
        instance, made, contents = three(world)
        before = world.served.objects()
        for copy, content in zip(made, contents, strict=True):
            assert restored(world, instance.volume_ids[0], copy) == content
            assert world.served.objects() == before

    def test_progress_is_that_of_the_mapping(self, make: Make) -> None:
        world = make(copy_rate=50, speed=2.0)
        instance = world.add((SIZE,))
        volume_id = instance.volume_ids[0]
        copy = world.snapshot(instance)[0]
        world.write(volume_id, 0, pattern(1, SIZE * 3 // 4))
        watched = Watched()
        world.storage.restore(watched.call(), instance, volume_id, copy.id)
        done = [done for done, _total in watched.reports]
        assert done == sorted(done)
        assert len(set(done)) > 3
        assert watched.reports[-1] == (SIZE, SIZE)

    def test_a_restore_goes_on_where_an_earlier_call_left_it(self, make: Make) -> None:
        world = make(copy_rate=1, speed=0.001)
        instance, made, contents = three(world)
        volume_id = instance.volume_ids[0]
        watched = Watched()
        thread = threading.Thread(target=_quietly, args=(world, watched, volume_id, made[0].id))
        thread.start()
        while not watched.reports:
            time.sleep(0.01)
        watched.interruption = BackendError("this process ends here")
        thread.join()
        assert mapping_to(world, world.vdisk(volume_id)).status == "copying"
        world.served.array.behaviour.speed = 20
        assert restored(world, volume_id, made[0]) == contents[0]
        assert world.served.faults.commands.count("mkfcmap") == 4

    def test_another_restore_takes_the_place_of_one_that_still_runs(self, make: Make) -> None:
        world = make(copy_rate=1, speed=0.001)
        instance, made, contents = three(world)
        volume_id = instance.volume_ids[0]
        world.client.run(
            "mkfcmap",
            source=naming.target(made[0].name),
            target=world.vdisk(volume_id),
            name=naming.reverse(volume_id, made[0].id),
            copyrate=1,
        )
        world.client.run("startfcmap", naming.reverse(volume_id, made[0].id), prep=True, restore=True)
        world.served.array.behaviour.speed = 10000
        assert restored(world, volume_id, made[2]) == contents[2]
        for copy, content in zip(made, contents, strict=True):
            assert restored(world, volume_id, copy) == content

    def test_a_restore_that_the_array_stops_can_be_repeated(self, make: Make) -> None:
        world = make(copy_rate=1, speed=0.001)
        instance, made, contents = three(world)
        volume_id = instance.volume_ids[0]
        watched = Watched()
        caught: list[Exception] = []
        thread = threading.Thread(target=_catching, args=(caught, world, watched, volume_id, made[1].id))
        thread.start()
        while not watched.reports:
            time.sleep(0.01)
        world.client.run("stopfcmap", naming.reverse(volume_id, made[1].id), force=True)
        thread.join()
        assert isinstance(caught[0], BackendError)
        assert "event log" in str(caught[0])
        world.served.array.behaviour.speed = 10000
        assert restored(world, volume_id, made[1]) == contents[1]

    def test_a_copy_is_not_deleted_while_a_volume_is_restored_from_it(self, make: Make) -> None:
        world = make(copy_rate=1, speed=0.001)
        instance, made, contents = three(world)
        volume_id = instance.volume_ids[0]
        watched = Watched()
        thread = threading.Thread(target=_quietly, args=(world, watched, volume_id, made[1].id))
        thread.start()
        while not watched.reports:
            time.sleep(0.01)
        with pytest.raises(Refused, match="being restored"):
            world.storage.delete(a_call(), made[1].reference)
        world.served.array.behaviour.speed = 10000
        thread.join()
        assert world.read(volume_id) == contents[1]
        world.storage.delete(a_call(), made[1].reference)


class TestDelete:
    @pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (0, 1, 2), (2, 0, 1)])
    def test_older_copies_outlive_the_newer_ones_that_they_read_through(
        self, world: ArrayWorld, order: tuple[int, ...]
    ) -> None:
        instance, made, contents = three(world)
        left = {0, 1, 2}
        for number in order:
            world.storage.delete(a_call(), made[number].reference)
            left.remove(number)
            for other in left:
                assert world.served.read(naming.target(made[other].name)) == contents[other]
        assert world.read(instance.volume_ids[0]) == pattern(9, SIZE)
        assert world.served.objects()["vdisks"] == [world.vdisk(instance.volume_ids[0])]

    def test_deleting_waits_until_the_older_ones_have_their_bytes(self, make: Make) -> None:
        world = make(speed=0.5)
        _instance, made, contents = three(world)
        started = time.monotonic()
        world.storage.delete(a_call(), made[2].reference)
        assert time.monotonic() - started > 0.1
        assert world.served.read(naming.target(made[0].name)) == contents[0]

    def test_force_is_never_said_where_it_would_harm_others(self, world: ArrayWorld) -> None:
        instance, made, _contents = three(world)
        world.storage.restore(a_call(), instance, instance.volume_ids[0], made[0].id)
        for copy in made:
            world.storage.delete(a_call(), copy.reference)
        assert {"stopfcmap", "rmvdisk"} <= set(world.served.faults.commands)
        assert set(world.served.faults.forced) == {"rmfcmap", "rmfcconsistgrp"}

    def test_a_copy_that_something_else_is_copied_from_is_kept(self, world: ArrayWorld) -> None:
        _instance, made, contents = three(world)
        world.served.array.add_vdisk("clone", SIZE)
        world.client.run("mkfcmap", name="clone", source=naming.target(made[1].name), target="clone", copyrate=0)
        world.client.run("startfcmap", "clone", prep=True)
        with pytest.raises(Refused, match="clone"):
            world.storage.delete(a_call(), made[1].reference)
        assert world.served.read("clone") == contents[1]

    @pytest.mark.parametrize("forgotten", [False, True], ids=["", "forgotten"])
    def test_volume_protection_is_told_and_the_copy_stays_listed(self, world: ArrayWorld, forgotten: bool) -> None:  # noqa: FBT001
        instance, made, _contents = three(world)
        if forgotten:
            world.forget(instance)
        world.served.array.behaviour.protect_volumes = True
        with pytest.raises(BackendError, match="CMMVC8783E"):
            world.storage.delete(a_call(), made[0].reference)
        left = world.storage.find(made[0].name.snapshot_id)[0]
        # Its mapping, which named the volume, is gone; a volume that still exists is known again.
        assert (left.id == made[0].id) == (not forgotten)
        assert left.name.volume_id == (naming.UNKNOWN_VOLUME if forgotten else instance.volume_ids[0])
        world.served.array.behaviour.protect_volumes = False
        world.storage.delete(a_call(), left.reference)
        assert world.storage.find(made[0].name.snapshot_id) == []


class TestArraySnapshots:
    LEVEL = "8.6.2.0 (build 169.4.2311)"

    def test_they_are_used_where_the_code_level_has_them(self, make: Make) -> None:
        world = make(Strategy.AUTO, code_level=self.LEVEL)
        instance, made, contents = three(world)
        assert len(world.served.objects()["snapshots"]) == 3
        assert world.client.run("lsfcmap") == []
        for copy, content in zip(made, contents, strict=True):
            assert restored(world, instance.volume_ids[0], copy) == content
        for copy in made:
            world.storage.delete(a_call(), copy.reference)
        time.sleep(0.1)
        assert world.served.objects()["vdisks"] == [world.vdisk(instance.volume_ids[0])]

    def test_a_volume_with_mappings_is_cut_by_mappings(self, make: Make) -> None:
        world = make(Strategy.AUTO, code_level="8.5.0.0 (build 1)")
        instance = world.add((SIZE,))
        volume_id = instance.volume_ids[0]
        world.write(volume_id, 0, pattern(1, SIZE))
        old = world.snapshot(instance)[0]
        world.served.array.behaviour.code_level = self.LEVEL
        again = make_again(world)
        world.write(volume_id, 0, pattern(2, SIZE))
        again.snapshot(instance)
        assert world.served.objects()["snapshots"] == []
        assert restored(again, volume_id, old) == pattern(1, SIZE)

    def test_they_are_refused_below_their_code_level(self, make: Make) -> None:
        world = make(Strategy.SNAPSHOTS)
        instance = world.add((SIZE,))
        with pytest.raises(NotSupported, match=r"8\.6\.2"):
            world.storage.check_cut(instance, instance.volume_ids)

    def test_one_copy_of_a_cut_is_struck_off_and_the_others_stay(self, make: Make) -> None:
        world = make(Strategy.SNAPSHOTS, code_level=self.LEVEL)
        instance = world.add((SIZE, SIZE))
        first, second = instance.volume_ids
        world.write(second, 0, pattern(1, SIZE))
        made = {copy.name.volume_id: copy for copy in world.snapshot(instance, SNAPSHOT)}
        world.storage.delete(a_call(), made[first].reference)
        assert [one.name.volume_id for one in world.storage.find(SNAPSHOT)] == [second]
        world.write(second, 0, pattern(2, SIZE))
        assert restored(world, second, made[second]) == pattern(1, SIZE)
        world.storage.delete(a_call(), made[second].reference)
        assert world.storage.find(None) == []
        time.sleep(0.1)
        assert world.served.objects()["snapshots"] == []


class TestAnything:
    """Random stories against a model that is a dictionary of bytes."""

    @pytest.mark.parametrize("seed", range(6))
    def test_whatever_is_done_in_whatever_order_the_bytes_are_right(self, make: Make, seed: int) -> None:
        chance = random.Random(seed)
        world = make(linger=seed % 2 == 1, speed=chance.choice([0.5, 100.0]))
        instance = world.add((SIZE,))
        volume_id = instance.volume_ids[0]
        volume, copies = bytearray(SIZE), {}
        for step in range(30):
            what = chance.choice(["write", "write", "snapshot", "restore", "delete"])
            if what == "write":
                offset = chance.randrange(0, SIZE, 4096)
                data = pattern(step, min(chance.choice([4096, 1 << 17]), SIZE - offset))
                world.write(volume_id, offset, data)
                volume[offset : offset + len(data)] = data
            elif what == "snapshot":
                copies[world.snapshot(instance)[0].id] = bytes(volume)
            elif copies:
                copy_id = chance.choice(sorted(copies))
                if what == "restore":
                    world.storage.restore(a_call(), instance, volume_id, copy_id)
                    volume[:] = copies[copy_id]
                else:
                    world.storage.delete(a_call(), CopyReference(copy_id))
                    del copies[copy_id]
            assert world.read(volume_id) == volume
            for copy_id, content in copies.items():
                vdisk = next(one for one in world.served.objects()["vdisks"] if one.endswith(naming.digest(copy_id)))
                assert world.served.read(vdisk) == content
        assert {one.id for one in world.storage.find(None)} == set(copies)
        assert len(world.served.objects()["mappings"]) == len(copies)


class TestSeveralArrays:
    def test_an_instance_on_two_arrays_is_cut_array_by_array(
        self, make: Make, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        world = make()
        second = Simulated(name="b", behaviour=Behaviour(speed=100.0))
        with simulated(tmp_path_factory.mktemp("second"), second) as served:
            address = ArrayOptions("b", served.endpoint, USER, PASSWORD, ca_file=served.ca_file)
            client = Client(address)
            arrays = Arrays([*world.arrays.all(), Array(client)])
            volumes = DeclaredVolumes(world.declarations, arrays)
            storage = StorageVirtualize(world.options, arrays, volumes)
            for array in (world.served.array, second):
                array.add_vdisk("same-name", SIZE)
            vdisks = tuple(DeclaredVdisk(name=name, vdisk="same-name", array=name) for name in ("a", "b"))
            instance = world.declare("two", vdisks)
            for number, place in enumerate((world.served, served)):
                place.write("same-name", 0, pattern(number, SIZE))
            names = world.names(instance, SNAPSHOT)
            prepared = storage.prepare_cut(a_call(), instance, names)
            cut = storage.cut(a_call(), instance, names, prepared)
            assert not cut.simultaneous
            assert cut.window_ms > 0
            for number, (place, copy) in enumerate(zip((world.served, served), cut.snapshots, strict=True)):
                storage.complete(a_call(), copy.reference)
                place.write("same-name", 0, pattern(7, SIZE))
                storage.restore(a_call(), instance, copy.name.volume_id, copy.id)
                assert place.read("same-name") == pattern(number, SIZE)
                assert len(place.objects()["vdisks"]) == 2
            assert {one.id for one in storage.find(SNAPSHOT)} == {one.id for one in cut.snapshots}
            for copy in cut.snapshots:
                storage.delete(a_call(), copy.reference)
            assert world.served.objects() == served.objects()
            client.close()

    def test_a_name_that_two_arrays_have_is_refused_with_both(
        self, make: Make, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        world = make()
        with simulated(tmp_path_factory.mktemp("second"), Simulated(name="b")) as served:
            client = Client(ArrayOptions("b", served.endpoint, USER, PASSWORD, ca_file=served.ca_file))
            arrays = Arrays([*world.arrays.all(), Array(client)])
            storage = StorageVirtualize(world.options, arrays, DeclaredVolumes(world.declarations, arrays))
            for array in (world.served.array, served.array):
                array.add_vdisk("twice", SIZE)
            instance = world.declare("vm", (DeclaredVdisk(name="root", vdisk="twice"),))
            with pytest.raises(Refused, match="'a' and 'b' each have a vdisk 'twice'"):
                storage.check_cut(instance, instance.volume_ids)
            client.close()

    def test_an_array_that_the_settings_do_not_have_is_named(self, world: ArrayWorld) -> None:
        instance = world.declare("lost", (DeclaredVdisk(name="a", vdisk="x", array="elsewhere"),))
        with pytest.raises(Refused, match="elsewhere"):
            world.storage.check_cut(instance, instance.volume_ids)


def make_again(world: ArrayWorld) -> ArrayWorld:
    """The same world after a restart of the service: what it knew of the array is forgotten."""
    world.storage = StorageVirtualize(world.options, world.arrays, world.volumes)
    return world


def _quietly(world: ArrayWorld, watched: Watched, volume_id: str, copy_id: str) -> None:
    _catching([], world, watched, volume_id, copy_id)


def _catching(caught: list[Exception], world: ArrayWorld, watched: Watched, volume_id: str, copy_id: str) -> None:
    try:
        world.storage.restore(watched.call(), world.holder(volume_id), volume_id, copy_id)
    except BackendError as error:
        caught.append(error)
