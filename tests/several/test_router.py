"""Which driver a call goes to, where there are several; and which drivers the settings may name together."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from stillframe.domain.errors import BackendError, InvalidInput, NotFound, Refused, Unavailable
from stillframe.domain.instance import Attachment, Instance, Source
from stillframe.domain.snapshot import CopyKind, CopyName, CopyReference
from stillframe.drivers.absent import BesideAbsent
from stillframe.drivers.call import Call
from stillframe.drivers.memory import MemoryDriver
from stillframe.drivers.registry import open_drivers
from stillframe.drivers.router import Member, Router
from stillframe.drivers.storage import Cut, PartOnly
from stillframe.settings import load
from stillframe.testing.world import OPERATION, SIZE, SNAPSHOT, Watched, a_call
from tests.harness.faults import Faults
from tests.harness.surround import surround


@dataclass(frozen=True, slots=True)
class First(Source):
    """What the first driver sees to."""


@dataclass(frozen=True, slots=True)
class Second(Source):
    """What the second one sees to."""


@dataclass(frozen=True, slots=True)
class Stray(Source):
    """What none of them sees to."""


class Two:
    """Two reference drivers, and an instance with a volume of each, in the first one's world."""

    def __init__(self) -> None:
        self.worlds = (MemoryDriver(), MemoryDriver())
        self.faults = (Faults(), Faults())
        own, other = (world.add_instance("demo", "vm", [SIZE]) for world in self.worlds)
        self.first, self.second = own.volume_ids[0], other.volume_ids[0]
        self.say(First(), Second())
        members = [
            Member(name, surround(world.storage, faults.around), (kind,))
            for name, world, faults, kind in zip(("one", "two"), self.worlds, self.faults, (First, Second), strict=True)
        ]
        self.router = Router(members, self.worlds[0].compute)

    @property
    def instance(self) -> Instance:
        return next(iter(self.worlds[0].instances.values()))

    def say(self, *sources: Source) -> None:
        """What the instance's volumes are from now on."""
        ids = (self.first, self.second)[: len(sources)]
        attachments = tuple(Attachment(one, "vd", source) for one, source in zip(ids, sources, strict=True))
        self.worlds[0].instances[self.instance.id] = replace(self.instance, attachments=attachments)

    def names(self) -> list[CopyName]:
        return [CopyName(CopyKind.SNAPSHOT, SNAPSHOT, one, OPERATION) for one in self.instance.volume_ids]

    def cut(self) -> Cut:
        prepared = self.router.prepare_cut(a_call(), self.instance, self.names())
        return self.router.cut(a_call(), self.instance, self.names(), prepared)

    def call(self) -> Call:
        """A call about the instance."""
        return replace(Watched().call(), instance_id=self.instance.id)

    def held(self) -> list[int]:
        """How many copies each has."""
        return [len(world.copies) for world in self.worlds]


@pytest.fixture
def two() -> Two:
    return Two()


class TestCutting:
    def test_each_volume_is_cut_by_the_driver_of_its_kind(self, two: Two) -> None:
        cut = two.cut()
        assert [(one.driver, one.name) for one in cut.snapshots] == list(zip(("one", "two"), two.names(), strict=True))
        assert not cut.simultaneous
        assert not two.router.simultaneous(two.instance, two.instance.volume_ids)

    def test_one_that_is_asked_alone_decides_alone(self, two: Two) -> None:
        names = two.names()[:1]
        assert two.router.simultaneous(two.instance, [two.first])
        cut = two.router.cut(a_call(), two.instance, names)
        assert (cut.simultaneous, cut.window_ms) == (True, 0.0)
        assert two.faults[1].calls == []

    def test_all_are_prepared_before_any_is_cut(self, two: Two) -> None:
        two.faults[1].fail("prepare_cut", Unavailable("away"))
        with pytest.raises(Unavailable, match="away"):
            two.cut()
        assert two.held() == [0, 0]

    def test_a_cut_is_over_only_when_all_have_come_to_an_end(self, two: Two) -> None:
        gate = two.faults[0].hold("cut")
        two.faults[1].fail("cut", BackendError("broken"))
        ended: list[BaseException] = []

        def cut() -> None:
            try:
                two.cut()
            except BackendError as error:
                ended.append(error)

        thread = threading.Thread(target=cut)
        thread.start()
        gate.arrived()
        assert ended == []
        gate.let_go()
        thread.join()
        assert [str(error) for error in ended] == ["broken"]

    def test_an_error_that_trying_again_does_not_mend_is_told_first(self, two: Two) -> None:
        two.faults[0].fail("cut", Unavailable("away"))
        two.faults[1].fail("cut", BackendError("broken"))
        with pytest.raises(BackendError, match="broken"):
            two.cut()

    def test_a_volume_of_no_driver_is_refused_with_a_way_out(self, two: Two) -> None:
        two.say(First(), Stray())
        with pytest.raises(Refused, match=r"there are: one, two.*\[drivers\] storage"):
            two.router.check_cut(two.instance, two.instance.volume_ids)
        two.router.check_cut(two.instance, [two.first])


class TestCopies:
    def test_a_copy_that_was_seen_goes_to_its_driver_alone(self, two: Two) -> None:
        copy = two.cut().snapshots[1]
        for faults in two.faults:
            faults.calls.clear()
        assert two.router.complete(a_call(), copy.reference).ready
        two.router.delete(a_call(), copy.reference)
        assert (two.faults[0].calls, two.faults[1].calls) == ([], ["complete", "delete"])

    def test_a_copy_that_is_on_record_goes_by_its_volume(self, two: Two) -> None:
        copies = [CopyReference(one.id, one.name.volume_id) for one in two.cut().snapshots]
        for copy in copies:
            assert two.router.complete(two.call(), copy).ready
        two.faults[0].fail("delete", Unavailable("away"))
        two.router.delete(two.call(), copies[1])
        assert two.held() == [1, 0]
        with pytest.raises(Unavailable):
            two.router.delete(two.call(), copies[0])

    @pytest.mark.parametrize("known", [True, False])
    def test_a_copy_of_an_instance_that_is_gone_is_looked_for_with_all(self, two: Two, *, known: bool) -> None:
        copies = [CopyReference(one.id, one.name.volume_id if known else None) for one in two.cut().snapshots]
        call = two.call()
        two.worlds[0].remove_instance(two.instance.id)
        for copy in copies:
            assert two.router.complete(call, copy).ready
            two.router.delete(call, copy)
        assert two.held() == [0, 0]

    def test_unknown_is_not_gone(self, two: Two) -> None:
        copy = CopyReference(two.cut().snapshots[0].id)
        two.faults[1].fail("delete", Unavailable("away"))
        two.faults[1].fail("complete", Unavailable("away"))
        with pytest.raises(Unavailable):
            two.router.delete(two.call(), copy)
        assert two.held() == [0, 1]
        with pytest.raises(Unavailable):
            two.router.complete(two.call(), copy)
        two.faults[1].mend()
        with pytest.raises(NotFound):
            two.router.complete(two.call(), copy)

    def test_a_volume_that_is_of_another_kind_by_now_leaves_a_copy_that_is_found(self, two: Two) -> None:
        two.cut()
        two.say(First(), First())
        two.worlds[0].volumes[two.second] = two.worlds[1].volumes[two.second]
        found = two.router.find(SNAPSHOT, two.instance.id)
        assert [one.driver for one in found if one.name.volume_id == two.second] == ["two"]
        with pytest.raises(NotFound):
            two.router.check_restore(two.instance, {two.second: two.names()[1].uuid})
        for one in found:
            two.router.delete(two.call(), one.reference)
        assert two.held() == [0, 0]

    def test_one_that_does_not_answer_is_missed_where_it_may_have_some(self, two: Two) -> None:
        two.cut()
        two.faults[1].fail("find", Unavailable("away"))
        for instance_id in (None, two.instance.id, str(uuid.uuid4())):
            with pytest.raises(PartOnly, match="away") as told:
                two.router.find(SNAPSHOT, instance_id)
            assert [one.driver for one in told.value.found] == ["one"]
        two.say(First())
        assert [one.driver for one in two.router.find(SNAPSHOT, two.instance.id)] == ["one"]


class TestVolumes:
    def test_they_are_found_with_whichever_has_them(self, two: Two) -> None:
        assert two.router.get_volume(two.second).id == two.second
        assert {one.id for one in two.router.list_volumes(None)} == {two.first, two.second}
        with pytest.raises(NotFound):
            two.router.get_volume(str(uuid.uuid4()))
        two.faults[0].fail("get_volume", Unavailable("away"))
        assert two.router.get_volume(two.second).id == two.second
        with pytest.raises(Unavailable):
            two.router.get_volume(str(uuid.uuid4()))

    def test_a_restore_goes_by_what_the_volume_is(self, two: Two) -> None:
        two.worlds[1].write(two.second, 0, b"then")
        for copy in two.cut().snapshots:
            two.router.complete(a_call(), copy.reference)
        two.worlds[1].write(two.second, 0, b"now.")
        copies = {name.volume_id: name.uuid for name in two.names()}
        assert two.router.check_restore(two.instance, copies) == dict.fromkeys(copies, "copy")
        for call in (two.call(), a_call()):
            two.router.release(call, two.second)
            two.router.restore(call, two.instance, two.second, copies[two.second])
        assert two.worlds[1].read(two.second, 0, 4) == b"then"
        with pytest.raises(NotFound):
            two.router.restore(two.call(), two.instance, str(uuid.uuid4()), copies[two.second])

    @pytest.mark.parametrize("whole", [True, False])
    def test_a_volume_is_given_back_although_it_is_attached_nowhere_any_more(self, two: Two, *, whole: bool) -> None:
        call = two.call()
        if whole:
            two.say(First())
        else:
            two.worlds[0].instances.clear()
        two.router.release(call, two.second)
        assert ["release" in faults.calls for faults in two.faults] == [False, True]
        with pytest.raises(NotFound):
            two.router.release(call, str(uuid.uuid4()))


class TestSettings:
    def chosen(self, folder: Path, names: str) -> Sequence[str]:
        overrides: list[tuple[str | None, str, object]] = [(None, "state_dir", str(folder))]
        settings = load(overrides=[*overrides, ("drivers", "storage", names)])
        drivers = open_drivers(settings)
        assert isinstance(drivers.storage, BesideAbsent)
        assert isinstance(drivers.storage.driver, Router) == (len(settings.drivers.storage) > 1)
        return settings.drivers.storage

    def test_one_or_several_are_chosen(self, tmp_path: Path) -> None:
        assert self.chosen(tmp_path, "files") == ("files",)
        assert self.chosen(tmp_path, "files, memory") == ("files", "memory")

    @pytest.mark.parametrize(
        ("names", "told"),
        [
            ("files, fiels", "there is no storage driver 'fiels'; there are: cinder, files, memory"),
            ("files, files", "'files' is named twice"),
            ("files, storage_virtualize", "at least one array"),
        ],
    )
    def test_what_cannot_be_chosen_is_told(self, tmp_path: Path, names: str, told: str) -> None:
        with pytest.raises(InvalidInput, match=told):
            self.chosen(tmp_path, names)
