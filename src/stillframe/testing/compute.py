"""What every compute driver does, whatever it stands on."""

from __future__ import annotations

import pytest

from stillframe.domain.errors import BackendError, Conflict, DeadlineExceeded, NotFound, Refused
from stillframe.domain.instance import PowerState, Source
from stillframe.domain.snapshot import ConsistencyLevel
from stillframe.testing.world import SIZE, Watched, World, a_call, pattern


def state(world: World, instance_id: str) -> PowerState:
    return world.compute.get_instance(instance_id).power_state


class TestLooking:
    def test_instances_are_listed_by_project_and_by_name(self, world: World) -> None:
        mine = [world.add(project_id="mine") for _ in range(3)]
        other = world.add(project_id="other")
        listed = world.compute.list_instances(world.project("mine"))
        assert [one.id for one in listed] == [one.id for one in sorted(mine, key=lambda one: (one.name, one.id))]
        assert len(world.compute.list_instances(None)) == 4
        assert world.compute.get_instance(other.id).project_id == world.project("other")

    def test_the_first_disk_is_the_one_it_boots_from(self, world: World) -> None:
        instance = world.add((SIZE, SIZE))
        assert [one.bootable for one in instance.attachments] == [True, False]

    def test_every_volume_says_what_it_is(self, world: World) -> None:
        instance = world.add((SIZE, SIZE))
        for looked in (instance, world.compute.get_instance(instance.id), world.compute.list_instances(None)[0]):
            assert all(isinstance(one.source, Source) for one in looked.attachments)
            assert looked.source(instance.volume_ids[1]) == instance.attachments[1].source
        assert instance.source("unknown") is None

    def test_what_is_not_there_is_not_found(self, world: World) -> None:
        with pytest.raises(NotFound):
            world.compute.get_instance("unknown")


class TestPower:
    def test_an_instance_starts_and_stops_and_doing_either_twice_is_fine(self, world: World) -> None:
        if not world.compute.capabilities.power_control:
            pytest.skip("this driver cannot switch instances")
        instance = world.add()
        for _ in range(2):
            world.compute.start(a_call(), instance.id)
            assert state(world, instance.id) is PowerState.ACTIVE
        for _ in range(2):
            world.compute.stop(a_call(), instance.id, 0.2)
            assert state(world, instance.id) is PowerState.SHUTOFF

    def test_a_fenced_instance_does_not_start(self, world: World) -> None:
        instance = world.add()
        world.compute.fence(instance.id, "snapshot")
        with pytest.raises(Refused, match="snapshot"):
            world.compute.start(a_call(), instance.id)
        assert state(world, instance.id) is PowerState.SHUTOFF
        world.compute.unfence(instance.id, "snapshot")
        world.compute.start(a_call(), instance.id)
        assert state(world, instance.id) is PowerState.ACTIVE

    def test_a_fence_has_one_owner(self, world: World) -> None:
        instance = world.add()
        for _ in range(2):
            world.compute.fence(instance.id, "first")
        with pytest.raises(Conflict, match="first"):
            world.compute.fence(instance.id, "second")
        world.compute.unfence(instance.id, "second")
        assert world.compute.fenced_by(instance.id) == "first"
        for _ in range(2):
            world.compute.unfence(instance.id, "first")
        assert world.compute.fenced_by(instance.id) is None

    def test_all_fences_are_told_in_one_go(self, world: World) -> None:
        first, second, _free = (world.add() for _ in range(3))
        before = dict(world.compute.fences())
        world.compute.fence(first.id, "one")
        world.compute.fence(second.id, "two")
        assert world.compute.fences() == before | {first.id: "one", second.id: "two"}
        world.compute.unfence(first.id, "one")
        assert world.compute.fences() == before | {second.id: "two"}
        world.compute.unfence(second.id, "two")

    def test_one_look_tells_whether_an_instance_is_held(self, world: World) -> None:
        instance = world.add()
        assert world.compute.hold(instance.id) == (PowerState.SHUTOFF, None)
        world.compute.fence(instance.id, "snapshot")
        assert world.compute.hold(instance.id) == (PowerState.SHUTOFF, "snapshot")
        world.forget(instance)
        with pytest.raises(NotFound):
            world.compute.hold(instance.id)

    def test_a_fence_of_an_instance_that_is_gone_can_be_taken_away(self, world: World) -> None:
        instance = world.add()
        world.compute.fence(instance.id, "snapshot")
        world.forget(instance)
        world.compute.unfence(instance.id, "snapshot")
        assert world.compute.fenced_by(instance.id) is None

    def test_the_look_at_all_fences_tells_of_an_instance_that_is_gone_what_is_told_of_it_alone(
        self, world: World
    ) -> None:
        instance = world.add()
        world.compute.fence(instance.id, "snapshot")
        world.forget(instance)
        assert world.compute.fences().get(instance.id) == world.compute.fenced_by(instance.id)
        world.compute.unfence(instance.id, "snapshot")
        assert instance.id not in world.compute.fences()

    def test_an_operation_past_its_deadline_does_not_wait_on(self, world: World) -> None:
        instance = world.add()
        world.compute.start(a_call(), instance.id)
        with pytest.raises(DeadlineExceeded):
            world.compute.stop(Watched(interruption=DeadlineExceeded("It took too long.")).call(), instance.id, 60)


class TestQuiesce:
    def test_an_instance_that_is_off_is_still_already(self, world: World) -> None:
        instance = world.add()
        with world.compute.quiesced(a_call(), instance.id) as stillness:
            assert stillness.level is ConsistencyLevel.CRASH
        assert state(world, instance.id) is PowerState.SHUTOFF

    def test_an_instance_that_is_started_meanwhile_spoils_the_cut(self, world: World) -> None:
        instance = world.add()
        with (
            pytest.raises(BackendError, match=r"still|stay"),
            world.compute.quiesced(a_call(), instance.id),
        ):
            world.compute.start(a_call(), instance.id)

    def test_a_running_instance_runs_again_afterwards_whatever_happened(self, world: World) -> None:
        best = world.compute.capabilities.quiesce
        instance = world.add()
        world.compute.start(a_call(), instance.id)
        with world.compute.quiesced(a_call(), instance.id) as stillness:
            assert (stillness.level is ConsistencyLevel.NONE) == (best is ConsistencyLevel.NONE)
        assert state(world, instance.id) is PowerState.ACTIVE
        with pytest.raises(ZeroDivisionError), world.compute.quiesced(a_call(), instance.id):
            raise ZeroDivisionError
        assert state(world, instance.id) is PowerState.ACTIVE

    def test_a_guest_let_go_meanwhile_spoils_the_cut(self, world: World) -> None:
        if world.compute.capabilities.quiesce is ConsistencyLevel.NONE:
            pytest.skip("this driver cannot hold a running instance still")
        instance = world.add()
        world.compute.start(a_call(), instance.id)
        with (
            pytest.raises(BackendError, match=r"still|stay"),
            world.compute.quiesced(a_call(), instance.id),
        ):
            world.compute.release(instance.id)
        assert state(world, instance.id) is PowerState.ACTIVE

    def test_releasing_what_is_not_held_does_nothing(self, world: World) -> None:
        instance = world.add()
        world.compute.release(instance.id)
        assert state(world, instance.id) is PowerState.SHUTOFF

    def test_a_cut_of_a_running_instance_holds_what_was_written_before_it(self, world: World) -> None:
        instance = world.add((SIZE, SIZE))
        world.compute.start(a_call(), instance.id)
        for number, volume_id in enumerate(instance.volume_ids):
            world.write(volume_id, 0, pattern(number))
        made = world.snapshot(world.compute.get_instance(instance.id))
        for volume_id in instance.volume_ids:
            world.write(volume_id, 0, pattern(7))
        world.compute.stop(a_call(), instance.id, 0.2)
        for number, (volume_id, copy) in enumerate(zip(instance.volume_ids, made, strict=True)):
            assert world.read(volume_id) == pattern(7)
            world.storage.restore(a_call(), instance, volume_id, copy.id)
            assert world.read(volume_id) == pattern(number)
