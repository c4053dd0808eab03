"""A worker that is suspended in a restore and comes back when another one has taken over: too late to do anything."""

from __future__ import annotations

import fcntl
import itertools
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stillframe.domain.errors import BackendError, StillframeError, Superseded
from stillframe.domain.instance import Instance
from stillframe.domain.snapshot import CopyKind, CopyName, CopyReference
from stillframe.drivers.call import Call
from stillframe.drivers.image_files.files import Draft, Files
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.leftovers import FoundDraft
from stillframe.testing.world import MIB, a_call, pattern
from tests.conformance.worlds import LocalWorld
from tests.harness.surround import surround
from tests.lab.filesystems import exfat


class Worker:
    """Works in a thread of its own until it is suspended right before effect number `at`."""

    def __init__(self, world: LocalWorld, at: int, act: Callable[[Call], object]) -> None:
        self.suspended = False
        self.problem: BaseException | None = None
        self._superseded = False
        self._stops, self._goes_on = threading.Event(), threading.Event()
        self._count = itertools.count()
        self._at = at
        world.use(surround(Files(), self._around))
        self._thread = threading.Thread(target=self._run, args=(act,), daemon=True)
        self._thread.start()
        assert self._stops.wait(60)

    def wake(self) -> None:
        """Go on as if nothing had happened; only from now on the store says that somebody has taken over."""
        self._superseded = True
        self._goes_on.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self, act: Callable[[Call], object]) -> None:
        try:
            act(Call("operation", "request", self._check, lambda _done, _total: None))
        except BaseException as problem:  # noqa: BLE001 -- what it was is asserted
            self.problem = problem
        self._stops.set()

    def _check(self) -> None:
        if self._superseded:
            raise Superseded("another worker has taken over")

    def _around(self, _name: str, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if next(self._count) == self._at:
            self.suspended = True
            self._stops.set()
            assert self._goes_on.wait(60)
        return method(*args, **kwargs)


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[LocalWorld]:
    """A world whose disks lie where drafts need names and nothing can be linked."""
    if not Path("/dev/fuse").exists():
        pytest.skip("there is no FUSE on this machine, and with it no exFAT")
    with exfat(tmp_path, 128 * MIB) as folder:
        world = LocalWorld(tmp_path / "world", Format.RAW)
        world.disks = folder / "disks"
        world.disks.mkdir()
        yield world
        world.close()


def test_drafts_that_need_names_neither_replace_the_disk_nor_stay(bare: LocalWorld) -> None:
    too_late(bare, CopyKind.SNAPSHOT)


def test_a_file_system_without_links_keeps_and_restores_every_kind_of_copy(bare: LocalWorld) -> None:
    instance = bare.add()
    volume_id = instance.volume_ids[0]
    bare.write(volume_id, 0, pattern(1))
    copy = bare.snapshot(instance)[0]
    bare.write(volume_id, 0, pattern(2))
    safety = bare.snapshot(instance, kind=CopyKind.SAFETY)[0]
    for one, number in ((copy, 1), (safety, 2), (copy, 1)):
        bare.storage.check_restore(instance, {volume_id: one.id})
        bare.storage.restore(a_call(), instance, volume_id, one.id)
        assert bare.read(volume_id) == pattern(number)
    bare.compute.start(a_call(), instance.id)
    running = bare.snapshot(bare.compute.get_instance(instance.id))[0]
    bare.compute.stop(a_call(), instance.id, 0)
    bare.storage.restore(a_call(), instance, volume_id, running.id)
    for one in (copy, safety, running):
        bare.storage.delete(a_call(), one.reference)
    assert list((bare.disks / ".stillframe").iterdir()) == []


@pytest.mark.parametrize("kind", CopyKind)
def test_a_superseded_restore_neither_replaces_the_disk_nor_leaves_anything(local: LocalWorld, kind: CopyKind) -> None:
    too_late(local, kind)


def too_late(local: LocalWorld, kind: CopyKind) -> None:
    """Suspend a restore before each of its effects in turn, take over with another one, and wake it."""
    instance = local.add()
    volume_id = instance.volume_ids[0]
    copies = {}
    for number in (1, 2):
        local.write(volume_id, 0, pattern(number))
        copies[number] = local.snapshot(instance, kind=kind if number == 1 else CopyKind.SNAPSHOT)[0].id
        # A safety copy is the disk's own file: another one takes its place, as in a restore.
        local.storage.restore(a_call(), instance, volume_id, copies[number])
        disk = local.path(volume_id)
        content = disk.read_bytes()
        disk.unlink()
        disk.write_bytes(content)
    for at in itertools.count():
        worker = Worker(local, at, lambda call: local.storage.restore(call, instance, volume_id, copies[1]))
        suspended = worker.suspended
        local.use(Files())
        local.storage.restore(a_call(), instance, volume_id, copies[2])
        worker.wake()
        assert local.read(volume_id) == pattern(2), at
        assert {path.name for path in (local.disks / ".stillframe").iterdir()} == set(copies.values()), at
        if not suspended:
            break
        assert worker.problem is None or isinstance(worker.problem, StillframeError), worker.problem
    assert at >= 4


class TestTurns:
    """Suspended before each effect of what it does to a copy, while another worker does the same and more."""

    @pytest.mark.parametrize("kind", CopyKind)
    def test_a_cut_that_is_too_late_costs_no_copy(self, local: LocalWorld, kind: CopyKind) -> None:
        instance = local.add()
        local.write(instance.volume_ids[0], 0, pattern(1))
        for at in itertools.count():
            names = local.names(instance, kind=kind)
            if not overtaken(
                local, at, cutting(local, instance, names), partial(cut_and_complete, local, instance, names)
            ):
                break
            require_sound(local, instance, names)
        assert at >= 4

    def test_a_completion_that_is_too_late_brings_nothing_back(self, local: LocalWorld) -> None:
        instance = local.add()
        for at in itertools.count():
            names = local.names(instance)
            local.storage.cut(a_call(), instance, names)
            if not overtaken(local, at, completing(local, names), partial(complete_and_delete, local, names)):
                break
            assert local.storage.find(names[0].snapshot_id) == []
            assert list((local.disks / ".stillframe").iterdir()) == []
        assert at >= 2

    def test_a_deletion_that_is_too_late_spares_what_was_cut_since(self, local: LocalWorld) -> None:
        instance = local.add()
        local.write(instance.volume_ids[0], 0, pattern(1))
        for at in itertools.count():
            names = local.names(instance, kind=CopyKind.SAFETY)
            cut_and_complete(local, instance, names)
            if not overtaken(local, at, deleting(local, names), partial(delete_and_cut, local, instance, names)):
                break
            require_sound(local, instance, names)
        assert at >= 3


def overtaken(local: LocalWorld, at: int, act: Callable[[Call], object], take_over: Callable[[], None]) -> bool:
    """Whether there was an effect number `at`; who cannot take over before the other wakes does so after it."""
    local.timeout = 0.2
    worker = Worker(local, at, act)
    local.use(Files())
    if not worker.suspended:
        worker.wake()
        return False
    try:
        take_over()
    except BackendError as refused:
        again = "Another worker has been changing the copy" in str(refused)
        if not again:
            raise
    else:
        again = False
    worker.wake()
    assert worker.problem is None or isinstance(worker.problem, StillframeError), worker.problem
    if again:
        take_over()
    return True


# With the drivers that the world has when it is done.


def cutting(local: LocalWorld, instance: Instance, names: list[CopyName]) -> Callable[[Call], object]:
    return lambda call: local.storage.cut(call, instance, names)


def completing(local: LocalWorld, names: list[CopyName]) -> Callable[[Call], object]:
    return lambda call: local.storage.complete(call, CopyReference(names[0].uuid))


def deleting(local: LocalWorld, names: list[CopyName]) -> Callable[[Call], object]:
    return lambda call: local.storage.delete(call, CopyReference(names[0].uuid))


def cut_and_complete(local: LocalWorld, instance: Instance, names: list[CopyName]) -> None:
    local.storage.cut(a_call(), instance, names)
    local.storage.complete(a_call(), CopyReference(names[0].uuid))


def complete_and_delete(local: LocalWorld, names: list[CopyName]) -> None:
    if local.storage.find(names[0].snapshot_id):
        local.storage.complete(a_call(), CopyReference(names[0].uuid))
    local.storage.delete(a_call(), CopyReference(names[0].uuid))


def delete_and_cut(local: LocalWorld, instance: Instance, names: list[CopyName]) -> None:
    local.storage.delete(a_call(), CopyReference(names[0].uuid))
    cut_and_complete(local, instance, names)


def require_sound(local: LocalWorld, instance: Instance, names: list[CopyName]) -> None:
    """The one copy is complete, can be put back, and is all that there is; it is gone at the end."""
    copy_id = names[0].uuid
    assert [(one.id, one.ready) for one in local.storage.find(names[0].snapshot_id)] == [(copy_id, True)]
    local.storage.check_restore(instance, {instance.volume_ids[0]: copy_id})
    local.storage.restore(a_call(), instance, instance.volume_ids[0], copy_id)
    assert local.read(instance.volume_ids[0]) == pattern(1)
    local.storage.delete(a_call(), CopyReference(copy_id))
    assert list((local.disks / ".stillframe").iterdir()) == []


class TestTidying:
    def test_a_draft_goes_when_its_maker_is_gone_and_not_before(self, local: LocalWorld) -> None:
        instance = local.add()
        copy = local.snapshot(instance)[0]
        root = local.disks / ".stillframe"
        name = f"{instance.volume_ids[0]}.attempt.restoring"
        # As it is after a kill between the two effects that put a disk in its place.
        held = os.open(root / name, os.O_RDWR | os.O_CREAT)
        draft = Draft(root, name, held, named=True)
        assert local.leftovers.drafts() == []
        local.leftovers.remove(FoundDraft(str(root / name), None))
        assert (root / name).exists()
        draft.named = False
        draft.close()
        # One without content has a name, on some file systems, before it is locked: only its age tells.
        (empty,) = local.leftovers.drafts()
        assert (empty.id, empty.state is None) == (str(root / name), False)
        (root / name).write_bytes(b"of some use once")
        local.leftovers.remove(empty)
        assert (root / name).exists()
        (left,) = local.leftovers.drafts()
        assert left == FoundDraft(str(root / name), None)
        local.leftovers.remove(left)
        assert [path.name for path in root.iterdir()] == [copy.id]

    def test_a_draft_of_a_record_goes_by_its_lock_whatever_its_age(self, local: LocalWorld) -> None:
        instance = local.add()
        local.snapshot(instance)
        draft = local.state / "copies" / f".{uuid.uuid4()}.{uuid.uuid4()}.attempt.new"
        draft.write_bytes(b"{}")
        found = FoundDraft(str(draft), None)
        with draft.open("rb") as maker:
            fcntl.flock(maker, fcntl.LOCK_EX)
            assert local.leftovers.drafts() == []
            local.leftovers.remove(found)
            assert draft.exists()
        assert local.leftovers.drafts() == [found]
        local.leftovers.remove(found)
        assert not draft.exists()

    def test_nothing_else_is_ever_taken_for_a_draft(self, local: LocalWorld) -> None:
        instance = local.add()
        local.snapshot(instance)
        (local.disks / ".stillframe" / "somebody-s").write_bytes(b"bytes")
        for path in [*local.disks.rglob("*"), *local.state.rglob("*")]:
            local.leftovers.remove(FoundDraft(str(path), None))
            assert path.exists()
        assert local.leftovers.orphans() == [str(local.disks / ".stillframe" / "somebody-s")]
