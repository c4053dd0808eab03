"""What every storage driver does, whatever it stands on."""

from __future__ import annotations

import uuid
from contextlib import nullcontext

import pytest

from stillframe.domain.errors import DeadlineExceeded, NotFound, Refused
from stillframe.domain.snapshot import CopyKind, CopyReference
from stillframe.testing.world import MIB, SIZE, SNAPSHOT, Watched, World, a_call, pattern


class TestCopies:
    def test_a_completed_copy_is_found_ready_under_its_name(self, world: World) -> None:
        instance = world.add((SIZE, 2 * MIB))
        snapshot_id = str(uuid.uuid4())
        made = world.snapshot(instance, snapshot_id)
        assert [one.size for one in made] == [world.size(SIZE), world.size(2 * MIB)]
        assert [one.name for one in made] == world.names(instance, snapshot_id)
        found = {one.id: one for one in world.storage.find(snapshot_id)}
        assert found == {one.id: one for one in made}
        assert all(one.ready for one in found.values())

    def test_what_is_said_to_be_cut_at_one_instant_is(self, world: World) -> None:
        instance = world.add((SIZE, SIZE))
        expected = world.storage.simultaneous(instance, instance.volume_ids)
        cut = world.storage.cut(a_call(), instance, world.names(instance))
        assert cut.simultaneous or not expected

    def test_copies_are_listed_by_snapshot_or_all_together(self, world: World) -> None:
        instance = world.add()
        first, second = world.snapshot(instance), world.snapshot(instance)
        assert {one.id for one in world.storage.find(first[0].name.snapshot_id)} == {first[0].id}
        assert {one.id for one in world.storage.find(None)} == {first[0].id, second[0].id}
        assert world.storage.find("unknown") == []

    def test_a_cut_copy_is_restored_from_only_when_it_is_listed_as_ready(self, world: World) -> None:
        instance = world.add()
        cut = world.storage.cut(a_call(), instance, world.names(instance, SNAPSHOT))
        (found,) = world.storage.find(SNAPSHOT)
        with nullcontext() if found.ready else pytest.raises(Refused):
            world.storage.check_restore(instance, {instance.volume_ids[0]: cut.snapshots[0].id})
        assert world.storage.complete(a_call(), cut.snapshots[0].reference).ready

    def test_a_later_cut_of_the_same_name_does_not_use_the_half_made_one(self, world: World) -> None:
        instance = world.add()
        volume_id = instance.volume_ids[0]
        world.write(volume_id, 0, pattern(1))
        world.storage.cut(a_call(), instance, world.names(instance, SNAPSHOT))
        world.write(volume_id, 0, pattern(2))
        made = world.snapshot(instance, SNAPSHOT)
        world.write(volume_id, 0, pattern(3))
        world.storage.restore(a_call(), instance, volume_id, made[0].id)
        assert world.read(volume_id) == pattern(2)
        for one in world.storage.find(SNAPSHOT):
            world.storage.delete(a_call(), one.reference)
        assert world.storage.find(SNAPSHOT) == []

    @pytest.mark.parametrize("handed_on", [True, False])
    def test_a_prepared_cut_has_what_is_there_at_the_cut(self, world: World, *, handed_on: bool) -> None:
        instance = world.add((SIZE, SIZE))
        names = world.names(instance, SNAPSHOT)
        for number in (1, 2):
            for volume_id in instance.volume_ids:
                world.write(volume_id, 0, pattern(number))
            prepared = world.storage.prepare_cut(a_call(), instance, names)
        for volume_id in instance.volume_ids:
            world.write(volume_id, 0, pattern(3))
        cut = world.storage.cut(a_call(), instance, names, prepared if handed_on else None)
        for copy in cut.snapshots:
            world.write(copy.name.volume_id, 0, pattern(4))
            world.storage.complete(a_call(), copy.reference)
            world.storage.restore(a_call(), instance, copy.name.volume_id, copy.id)
            assert world.read(copy.name.volume_id) == pattern(3)

    def test_what_was_prepared_and_never_cut_is_found_and_can_be_deleted(self, world: World) -> None:
        instance = world.add((SIZE, SIZE))
        world.storage.prepare_cut(a_call(), instance, world.names(instance, SNAPSHOT))
        for copy in world.storage.find(SNAPSHOT):
            assert not copy.ready
            world.storage.delete(a_call(), copy.reference)
        assert world.storage.find(None) == []

    def test_completing_twice_is_as_completing_once(self, world: World) -> None:
        made = world.snapshot(world.add())[0]
        assert world.storage.complete(a_call(), made.reference) == made

    def test_completing_a_copy_that_is_not_there_says_so(self, world: World) -> None:
        with pytest.raises(NotFound):
            world.storage.complete(a_call(), CopyReference(str(uuid.uuid4())))

    def test_a_deleted_copy_is_gone_and_deleting_it_again_is_fine(self, world: World) -> None:
        instance = world.add()
        kept, dropped = world.snapshot(instance)[0], world.snapshot(instance)[0]
        for _ in range(2):
            world.storage.delete(a_call(), dropped.reference)
        assert [one.id for one in world.storage.find(None)] == [kept.id]
        with pytest.raises(NotFound):
            world.storage.check_restore(instance, {instance.volume_ids[0]: dropped.id})

    def test_a_half_made_copy_can_be_deleted(self, world: World) -> None:
        instance = world.add()
        cut = world.storage.cut(a_call(), instance, world.names(instance, SNAPSHOT))
        world.storage.delete(a_call(), cut.snapshots[0].reference)
        assert world.storage.find(SNAPSHOT) == []

    def test_copies_outlive_their_instance(self, world: World) -> None:
        instance = world.add()
        made = world.snapshot(instance)[0]
        world.forget(instance)
        assert [one.id for one in world.storage.find(None)] == [made.id]
        world.storage.delete(a_call(), made.reference)
        assert world.storage.find(None) == []

    def test_only_a_back_end_that_cuts_a_running_guest_at_once_says_so(self, world: World) -> None:
        instance = world.add((MIB, MIB))
        cut = world.storage.cut(a_call(), instance, world.names(instance))
        assert cut.window_ms >= 0
        assert not cut.simultaneous or cut.window_ms == 0


class TestRestore:
    @pytest.mark.parametrize("chosen", [0, 1, 2], ids=["oldest", "middle", "newest"])
    def test_a_volume_goes_back_to_any_copy_and_all_copies_stay(self, world: World, chosen: int) -> None:
        instance = world.add()
        volume_id = instance.volume_ids[0]
        made = []
        for number in range(3):
            world.write(volume_id, number * MIB, pattern(number, 2 * MIB))
            made.append((world.snapshot(instance)[0], world.read(volume_id)))
        world.write(volume_id, 0, pattern(9))
        world.storage.check_restore(instance, {volume_id: made[chosen][0].id})
        world.storage.restore(a_call(), instance, volume_id, made[chosen][0].id)
        assert world.read(volume_id) == made[chosen][1]
        for copy, expected in made:
            world.storage.restore(a_call(), instance, volume_id, copy.id)
            assert world.read(volume_id) == expected

    def test_restoring_twice_is_as_restoring_once(self, world: World) -> None:
        instance = world.add()
        volume_id = instance.volume_ids[0]
        world.write(volume_id, 0, pattern(1))
        made = world.snapshot(instance)[0]
        world.write(volume_id, MIB, pattern(2, MIB))
        for _ in range(2):
            world.storage.restore(a_call(), instance, volume_id, made.id)
        assert world.read(volume_id) == pattern(1)
        assert instance.volume_ids == world.compute.get_instance(instance.id).volume_ids

    def test_writing_after_a_restore_leaves_the_copy_alone(self, world: World) -> None:
        instance = world.add()
        volume_id = instance.volume_ids[0]
        world.write(volume_id, 0, pattern(1))
        made = world.snapshot(instance)[0]
        for number in (2, 3):
            world.storage.restore(a_call(), instance, volume_id, made.id)
            assert world.read(volume_id) == pattern(1)
            world.write(volume_id, 0, pattern(number))

    def test_safety_copies_bring_every_volume_back(self, world: World) -> None:
        instance = world.add((SIZE, SIZE))
        first, second = instance.volume_ids
        for volume_id in instance.volume_ids:
            world.write(volume_id, 0, pattern(1))
        old = world.snapshot(instance)
        for volume_id in instance.volume_ids:
            world.write(volume_id, 0, pattern(2))
        safety = world.snapshot(instance, old[0].name.snapshot_id, CopyKind.SAFETY)
        # One volume is put back, the other one fails and is never touched.
        world.storage.restore(a_call(), instance, first, old[0].id)
        assert world.read(first) == pattern(1)
        for volume_id, copy in zip(instance.volume_ids, safety, strict=True):
            world.storage.check_restore(instance, {volume_id: copy.id})
            world.storage.restore(a_call(), instance, volume_id, copy.id)
            world.storage.delete(a_call(), copy.reference)
        assert world.read(first) == world.read(second) == pattern(2)
        assert {one.id for one in world.storage.find(None)} == {one.id for one in old}
        world.storage.restore(a_call(), instance, second, old[1].id)
        assert world.read(second) == pattern(1)

    def test_an_interrupted_restore_changes_nothing(self, world: World) -> None:
        instance = world.add()
        volume_id = instance.volume_ids[0]
        made = world.snapshot(instance)[0]
        world.write(volume_id, 0, pattern(2))
        watched = Watched(interruption=DeadlineExceeded("It took too long."))
        with pytest.raises(DeadlineExceeded):
            world.storage.restore(watched.call(), instance, volume_id, made.id)
        assert not watched.touched
        assert world.read(volume_id) == pattern(2)
        world.storage.restore(a_call(), instance, volume_id, made.id)
        assert world.read(volume_id) == bytes(SIZE)

    def test_a_restore_says_that_it_touches_the_volume(self, world: World) -> None:
        instance = world.add()
        made = world.snapshot(instance)[0]
        world.write(instance.volume_ids[0], 0, pattern(2))
        watched = Watched()
        world.storage.restore(watched.call(), instance, instance.volume_ids[0], made.id)
        assert watched.touched

    def test_progress_is_reported_up_to_its_end(self, world: World) -> None:
        if not world.storage.capabilities.copy_progress:
            pytest.skip("this driver cannot say how far it is")
        instance = world.add()
        world.write(instance.volume_ids[0], 0, pattern(1))
        watched = Watched()
        cut = world.storage.cut(watched.call(), instance, world.names(instance))
        world.storage.complete(watched.call(), cut.snapshots[0].reference)
        assert watched.reports[-1][0] == watched.reports[-1][1] > 0
        watched.reports.clear()
        world.storage.restore(watched.call(), instance, instance.volume_ids[0], cut.snapshots[0].id)
        assert watched.reports[-1][0] == watched.reports[-1][1] > 0


class TestChecks:
    def test_a_volume_of_another_instance_is_not_cut(self, world: World) -> None:
        with pytest.raises(Refused):
            world.storage.check_cut(world.add(), world.add().volume_ids)

    def test_a_missing_disk_is_not_cut(self, world: World) -> None:
        instance = world.add()
        world.lose(instance.volume_ids[0])
        with pytest.raises(Refused):
            world.storage.check_cut(instance, instance.volume_ids)

    def test_a_missing_disk_is_not_restored(self, world: World) -> None:
        instance = world.add()
        made = world.snapshot(instance)[0]
        world.lose(instance.volume_ids[0])
        with pytest.raises((Refused, NotFound)):
            world.storage.check_restore(instance, {instance.volume_ids[0]: made.id})

    @pytest.mark.parametrize("size", [SIZE // 2, SIZE * 2], ids=["shrunk", "grown"])
    def test_a_disk_of_another_size_is_not_restored(self, world: World, size: int) -> None:
        instance = world.add()
        volume_id = instance.volume_ids[0]
        made = world.snapshot(instance)[0]
        world.resize(volume_id, size)
        before = world.read(volume_id)
        with pytest.raises(Refused, match=r"resize|shrink"):
            world.storage.check_restore(instance, {volume_id: made.id})
        watched = Watched()
        with pytest.raises(Refused):
            world.storage.restore(watched.call(), instance, volume_id, made.id)
        assert not watched.touched
        assert world.read(volume_id) == before

    def test_a_copy_of_another_volume_is_not_put_back(self, world: World) -> None:
        instance = world.add((SIZE, SIZE))
        made = world.snapshot(instance)
        # Which may lie in another back end, where the volume's own does not find it.
        with pytest.raises((Refused, NotFound)):
            world.storage.check_restore(instance, {instance.volume_ids[0]: made[1].id})

    def test_what_is_not_there_is_not_found(self, world: World) -> None:
        instance = world.add()
        with pytest.raises(NotFound):
            world.storage.get_volume("unknown")
        with pytest.raises(NotFound):
            world.storage.check_restore(instance, {instance.volume_ids[0]: str(uuid.uuid4())})
        with pytest.raises(NotFound):
            world.storage.check_restore(instance, {"unknown": world.snapshot(instance)[0].id})

    def test_volumes_are_listed_by_project(self, world: World) -> None:
        mine, other = world.add((SIZE, MIB), "mine"), world.add((MIB,), "other")
        assert {one.id for one in world.storage.list_volumes(world.project("mine"))} == set(mine.volume_ids)
        assert {one.id for one in world.storage.list_volumes(None)} == {*mine.volume_ids, *other.volume_ids}
        volume = world.storage.get_volume(mine.volume_ids[0])
        assert (volume.size, volume.project_id) == (world.size(SIZE), world.project("mine"))
        assert volume.instance_id == mine.id
        assert volume.bootable
