"""Image files in particular: room, holes, chains, links, and a stop at any point."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stillframe.domain.errors import Conflict, Damaged, InvalidInput, OutOfSpace, Refused
from stillframe.domain.instance import Instance
from stillframe.domain.snapshot import CopyKind, CopyReference
from stillframe.drivers.files.images import Images
from stillframe.drivers.files.records import Records
from stillframe.drivers.image_files.files import Files, allocated
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.qemu.declaration import Declaration, Declarations, Disk, load
from stillframe.testing.world import MIB, SIZE, a_call, pattern
from tests.conformance.worlds import LocalWorld, Stopped, run, stopping
from tests.harness.surround import surround
from tests.lab.filesystems import mounted


def stops(world: LocalWorld, act: Callable[[], object]) -> Iterator[None]:
    """Do something again and again, stopped at each point in turn, until it gets through."""
    for at in range(100):
        world.use(*stopping(at))
        try:
            act()
        except Stopped:
            world.use(Files())
            yield
        else:
            world.use(Files())
            return


def litter(world: LocalWorld) -> set[str]:
    """The names in the folder of the copies that belong to no complete copy."""
    root = world.disks / ".stillframe"
    return {one.name for one in root.iterdir()} - {one.id for one in world.storage.find(None) if one.ready}


class TestStops:
    def test_a_restore_stopped_anywhere_leaves_the_old_or_the_new_and_can_be_repeated(self, local: LocalWorld) -> None:
        instance = local.add()
        volume_id = instance.volume_ids[0]
        local.write(volume_id, 0, pattern(1))
        copy = local.snapshot(instance)[0]
        local.write(volume_id, 0, pattern(2))
        points = 0
        for _ in stops(local, lambda: local.storage.restore(a_call(), instance, volume_id, copy.id)):
            points += 1
            assert local.read(volume_id) in (pattern(1), pattern(2))
            local.storage.restore(a_call(), instance, volume_id, copy.id)
            assert local.read(volume_id) == pattern(1)
            assert litter(local) == set()
            local.write(volume_id, 0, pattern(2))
        assert points > 3

    def test_a_cut_stopped_anywhere_is_dropped_by_the_next_one(self, local: LocalWorld) -> None:
        instance = local.add((SIZE, MIB))
        for _ in stops(local, lambda: local.storage.cut(a_call(), instance, local.names(instance, "s"))):
            local.write(instance.volume_ids[0], 0, pattern(5))
            made = local.snapshot(instance, "s")
            assert [one.ready for one in local.storage.find("s")] == [True, True]
            local.write(instance.volume_ids[0], 0, pattern(6))
            local.storage.restore(a_call(), instance, instance.volume_ids[0], made[0].id)
            assert local.read(instance.volume_ids[0]) == pattern(5)
            for one in made:
                local.storage.delete(a_call(), one.reference)
            assert litter(local) == set()

    def test_what_a_stopped_cut_left_is_found_and_removed(self, local: LocalWorld) -> None:
        instance = local.add((SIZE, MIB))
        for _ in stops(local, lambda: local.storage.cut(a_call(), instance, local.names(instance, "s"))):
            for one in local.storage.find("s"):
                local.storage.delete(a_call(), one.reference)
            root = local.disks / ".stillframe"
            assert not root.exists() or litter(local) == set()

    def test_a_completion_stopped_anywhere_can_be_repeated(self, local: LocalWorld) -> None:
        instance = local.add()
        volume_id = instance.volume_ids[0]
        local.write(volume_id, 0, pattern(1))
        copy_id = local.storage.cut(a_call(), instance, local.names(instance, "s")).snapshots[0].id
        for _ in stops(local, lambda: local.storage.complete(a_call(), CopyReference(copy_id))):
            assert local.storage.complete(a_call(), CopyReference(copy_id)).ready
            assert litter(local) == set()
            local.storage.cut(a_call(), instance, local.names(instance, "s"))

    def test_a_deletion_stopped_anywhere_can_be_repeated(self, local: LocalWorld) -> None:
        instance = local.add()
        copy = local.snapshot(instance, "s")[0]
        for _ in stops(local, lambda: local.storage.delete(a_call(), copy.reference)):
            local.storage.delete(a_call(), copy.reference)
            assert list((local.disks / ".stillframe").iterdir()) == []
            local.snapshot(instance, "s")


class TestRoom:
    @pytest.fixture
    def small(self, tmp_path: Path, file_systems: dict[str, Path]) -> Iterator[LocalWorld]:
        assert file_systems
        with mounted(tmp_path, "ext4", 96 * MIB) as folder:
            world = LocalWorld(folder / "world", Format.RAW)
            yield world
            world.close()

    @staticmethod
    def fill(world: LocalWorld, leave: int) -> Path:
        filler = world.folder / f"filler-{uuid.uuid4().hex}"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(MIB, Files().free(world.folder) - leave))
        return filler

    @staticmethod
    def filled(world: LocalWorld) -> Instance:
        instance = world.add((16 * MIB,))
        world.write(instance.volume_ids[0], 0, pattern(1, 16 * MIB))
        return instance

    def test_a_full_file_system_refuses_the_cut_and_says_how_much_is_missing(self, small: LocalWorld) -> None:
        instance = self.filled(small)
        self.fill(small, 12 * MIB)
        with pytest.raises(OutOfSpace, match="make room"):
            small.storage.check_cut(instance, instance.volume_ids)
        assert small.storage.find(None) == []

    def test_a_full_file_system_refuses_the_restore(self, small: LocalWorld) -> None:
        instance = self.filled(small)
        copy = small.snapshot(instance)[0]
        self.fill(small, 12 * MIB)
        with pytest.raises(OutOfSpace):
            small.storage.check_restore(instance, {instance.volume_ids[0]: copy.id})

    def test_a_safety_copy_and_going_back_to_it_need_no_room(self, small: LocalWorld) -> None:
        instance = self.filled(small)
        old = small.snapshot(instance)[0]
        small.write(instance.volume_ids[0], 0, pattern(2, 16 * MIB))
        names = small.names(instance, "s", CopyKind.SAFETY)
        safety = small.storage.cut(a_call(), instance, names).snapshots[0]
        small.storage.complete(a_call(), safety.reference)
        small.storage.restore(a_call(), instance, instance.volume_ids[0], old.id)
        self.fill(small, 0)
        small.storage.check_restore(instance, {instance.volume_ids[0]: safety.id})
        small.storage.restore(a_call(), instance, instance.volume_ids[0], safety.id)
        assert small.read(instance.volume_ids[0]) == pattern(2, 16 * MIB)

    @pytest.mark.parametrize("leave", [6 * MIB, 0], ids=["some", "none"])
    def test_a_disk_that_gets_full_meanwhile_is_left_as_it_was(self, small: LocalWorld, leave: int) -> None:
        instance = self.filled(small)
        copy = small.snapshot(instance)[0]
        small.write(instance.volume_ids[0], 0, pattern(2, 16 * MIB))
        fillers: list[Path] = []

        def around(name: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if name == "copy":
                fillers.append(self.fill(small, leave))
            return method(*args, **kwargs)

        before = Files().free(small.folder)
        small.use(surround(Files(), around))
        with pytest.raises(OutOfSpace):
            small.storage.restore(a_call(), instance, instance.volume_ids[0], copy.id)
        with pytest.raises(OutOfSpace):
            small.storage.cut(a_call(), instance, small.names(instance, "s"))
        for filler in fillers:
            filler.unlink()
        for one in small.storage.find("s"):
            small.storage.delete(a_call(), one.reference)
        assert small.read(instance.volume_ids[0]) == pattern(2, 16 * MIB)
        assert litter(small) == set()
        assert abs(Files().free(small.folder) - before) < MIB

    def test_holes_stay_holes_in_the_copy_and_after_the_restore(self, local: LocalWorld) -> None:
        instance = local.add((256 * MIB,))
        volume_id = instance.volume_ids[0]
        local.write(volume_id, 100 * MIB, pattern(1, MIB))
        copy = local.snapshot(instance)[0]
        local.storage.restore(a_call(), instance, volume_id, copy.id)
        assert allocated(local.path(volume_id)) < 4 * MIB
        assert allocated(local.disks / ".stillframe" / copy.id / "data") < 4 * MIB
        assert local.read(volume_id)[100 * MIB : 101 * MIB] == pattern(1, MIB)


class TestFiles:
    def test_owner_mode_and_attributes_survive_a_restore(self, local: LocalWorld) -> None:
        instance = local.add()
        path = local.path(instance.volume_ids[0])
        copy = local.snapshot(instance)[0]
        os.chown(path, 1234, 4321)
        path.chmod(0o640)
        os.setxattr(path, "user.note", b"kept")
        local.write(instance.volume_ids[0], 0, pattern(1))
        local.storage.restore(a_call(), instance, instance.volume_ids[0], copy.id)
        found = path.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (1234, 4321, 0o640)
        assert os.getxattr(path, "user.note") == b"kept"

    def test_a_disk_behind_a_symbolic_link_stays_behind_it(self, local: LocalWorld) -> None:
        elsewhere = local.folder / "elsewhere"
        elsewhere.mkdir()
        real, link = elsewhere / "disk", local.disks / "link"
        run("qemu-img", "create", "-q", "-f", local.form, str(real), str(SIZE))
        link.symlink_to(real)
        instance = local.declare("linked", [Disk(name="root", path=link, format=local.form)])
        copy = local.snapshot(instance)[0]
        local.write(instance.volume_ids[0], 0, pattern(1))
        local.storage.restore(a_call(), instance, instance.volume_ids[0], copy.id)
        assert link.is_symlink()
        assert local.read(instance.volume_ids[0]) == bytes(SIZE)
        assert (elsewhere / ".stillframe" / copy.id).is_dir()

    def test_a_moved_disk_is_not_restored(self, local: LocalWorld) -> None:
        instance = local.add()
        copy = local.snapshot(instance)[0]
        path = local.path(instance.volume_ids[0])
        moved = path.rename(local.folder / "moved")
        path.symlink_to(moved)
        with pytest.raises(Refused, match="moved"):
            local.storage.check_restore(instance, {instance.volume_ids[0]: copy.id})

    def test_a_copy_that_was_cut_off_is_damaged(self, local: LocalWorld) -> None:
        instance = local.add()
        copy = local.snapshot(instance)[0]
        os.truncate(local.disks / ".stillframe" / copy.id / "data", 4096)
        with pytest.raises(Damaged, match="length"):
            local.storage.check_restore(instance, {instance.volume_ids[0]: copy.id})

    def test_a_copy_whose_record_cannot_be_read_does_not_hide_the_others(self, local: LocalWorld) -> None:
        instance = local.add()
        bad, good = local.snapshot(instance)[0], local.snapshot(instance)[0]
        next((local.state / "copies").glob(f"*.{bad.id}")).write_text("{")
        assert [one.id for one in local.storage.find(None)] == [good.id]
        with pytest.raises(Damaged, match="record"):
            local.storage.check_restore(instance, {instance.volume_ids[0]: bad.id})
        assert litter(local) == {bad.id}

    def test_an_inconsistent_image_becomes_a_safety_copy_but_no_snapshot(self, local: LocalWorld) -> None:
        if local.form is not Format.QCOW2:
            pytest.skip("a raw image has nothing to be inconsistent")
        instance = local.add()
        local.write(instance.volume_ids[0], 0, pattern(1))
        path = local.path(instance.volume_ids[0])
        with path.open("r+b") as file:
            file.seek(48)
            table = int.from_bytes(file.read(8), "big")
            file.seek(table)
            file.write(bytes(8))
        cut = local.storage.cut(a_call(), instance, local.names(instance))
        with pytest.raises(Damaged, match=r"inconsistent|checked"):
            local.storage.complete(a_call(), cut.snapshots[0].reference)
        assert local.snapshot(instance, kind=CopyKind.SAFETY)[0].ready


class TestChains:
    @staticmethod
    def chained(world: LocalWorld) -> tuple[Instance, Path]:
        if world.form is not Format.QCOW2:
            pytest.skip("a raw image has nothing below it")
        base, top = world.disks / "base.raw", world.disks / "top.qcow2"
        base.write_bytes(pattern(1))
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", str(top))
        return world.declare("chained", [Disk(name="root", path=top, format=Format.QCOW2)]), base

    def test_an_image_over_another_one_comes_back_over_it(self, local: LocalWorld) -> None:
        instance, _ = self.chained(local)
        local.write(instance.volume_ids[0], MIB, pattern(2, MIB))
        expected = local.read(instance.volume_ids[0])
        copy = local.snapshot(instance)[0]
        local.write(instance.volume_ids[0], 0, pattern(3))
        local.storage.restore(a_call(), instance, instance.volume_ids[0], copy.id)
        assert local.read(instance.volume_ids[0]) == expected

    def test_a_running_image_over_another_one_comes_back_over_it(self, local: LocalWorld) -> None:
        instance, base = self.chained(local)
        local.compute.start(a_call(), instance.id)
        local.write(instance.volume_ids[0], MIB, pattern(2, MIB))
        copy = local.snapshot(instance)[0]
        local.write(instance.volume_ids[0], 0, pattern(3))
        local.compute.stop(a_call(), instance.id, 0)
        assert allocated(local.disks / ".stillframe" / copy.id / "data") < 3 * MIB
        local.storage.restore(a_call(), instance, instance.volume_ids[0], copy.id)
        assert local.read(instance.volume_ids[0]) == pattern(1)[:MIB] + pattern(2, MIB) + pattern(1)[2 * MIB :]
        assert base.read_bytes() == pattern(1)

    def test_a_chain_that_was_written_to_refuses_the_restore(self, local: LocalWorld) -> None:
        instance, base = self.chained(local)
        copy = local.snapshot(instance)[0]
        base.write_bytes(pattern(4))
        with pytest.raises(Refused, match="written to"):
            local.storage.check_restore(instance, {instance.volume_ids[0]: copy.id})

    def test_a_broken_chain_refuses_the_cut(self, local: LocalWorld) -> None:
        instance, base = self.chained(local)
        base.unlink()
        with pytest.raises(Refused, match="chain"):
            local.storage.check_cut(instance, instance.volume_ids)


class TestDeclarations:
    @pytest.fixture
    def declarations(self, tmp_path: Path) -> Declarations:
        return Declarations(tmp_path / "instances")

    @staticmethod
    def declaration(path: Path, form: Format = Format.RAW, name: str = "vm") -> Declaration:
        disk = Disk(name="root", path=path, format=form)
        return Declaration(id=str(uuid.uuid4()), name=name, project_id="p", disks=(disk,))

    def test_a_declaration_is_read_back_as_it_was_written(self, declarations: Declarations, tmp_path: Path) -> None:
        (tmp_path / "disk").write_bytes(bytes(512))
        written = self.declaration(tmp_path / "disk")
        assert load(declarations.add(Files(), Images(), written)) == written
        assert declarations.instance(written.id) == written
        declarations.remove(Files(), "vm")
        assert declarations.all() == []

    def test_a_disk_belongs_to_one_instance(self, declarations: Declarations, tmp_path: Path) -> None:
        (tmp_path / "disk").write_bytes(bytes(512))
        (tmp_path / "hard").hardlink_to(tmp_path / "disk")
        declarations.add(Files(), Images(), self.declaration(tmp_path / "disk"))
        with pytest.raises(Conflict, match="'vm'"):
            declarations.add(Files(), Images(), self.declaration(tmp_path / "hard", name="other"))

    def test_a_wrong_format_is_refused(self, declarations: Declarations, tmp_path: Path) -> None:
        run("qemu-img", "create", "-q", "-f", "qcow2", str(tmp_path / "q"), "1M")
        (tmp_path / "r").write_bytes(bytes(4096))
        with pytest.raises(InvalidInput):
            declarations.add(Files(), Images(), self.declaration(tmp_path / "q", Format.RAW))
        with pytest.raises(Refused):
            declarations.add(Files(), Images(), self.declaration(tmp_path / "r", Format.QCOW2))
        assert Images().probe(tmp_path / "q") is Format.QCOW2
        with pytest.raises(Refused, match="raw"):
            Images().probe(tmp_path / "r")

    @pytest.mark.parametrize("key", ["qmp_socket", "guest_agent_socket"])
    def test_a_socket_that_nobody_can_connect_to_is_refused(self, tmp_path: Path, key: str) -> None:
        disks = '[[disks]]\nname = "d"\npath = "/d"\nformat = "raw"\n'
        told = 'id = "{0}"\nname = "a"\nproject_id = "p"\n{1} = "{2}"\n' + disks
        path = tmp_path / "vm.toml"
        path.write_text(told.format(uuid.UUID(int=1), key, "/" + "x" * 106))
        assert load(path).name == "a"
        path.write_text(told.format(uuid.UUID(int=1), key, "/" + "x" * 107))
        with pytest.raises(InvalidInput, match=rf"^{key}: .*107 bytes"):
            load(path)

    def test_an_error_names_the_file_and_the_key(self, declarations: Declarations, tmp_path: Path) -> None:
        broken = tmp_path / "instances" / "broken.toml"
        broken.parent.mkdir()
        broken.write_text('id = "x"\nname = "a"\nproject_id = "p"\ndisks = []\n')
        with pytest.raises(InvalidInput, match=r"^id: .*broken\.toml"):
            load(broken)
        assert declarations.all() == []


class TestRecords:
    @pytest.mark.parametrize("act", ["written anew", "removed"])
    def test_what_a_kill_left_of_a_record_goes_when_it_is(self, plain: LocalWorld, act: str) -> None:
        instance = plain.add()
        (copy,) = plain.snapshot(instance)
        records = Records(plain.files, plain.state)
        record = next(path for path in records.folder.iterdir() if path.name.endswith(copy.id))
        abandoned, taken = (record.with_name(f".{record.name}.{word}.new") for word in ("0123abcd", "4567cdef"))
        abandoned.touch()
        with taken.open("w") as made:
            # The maker of this one lives, and is about to put it in place.
            fcntl.flock(made, fcntl.LOCK_EX)
            if act == "removed":
                plain.storage.delete(a_call(), copy.reference)
            else:
                records.write(records.get(copy.id))
            assert (abandoned.exists(), taken.exists()) == (False, True)
        assert record.exists() == (act == "written anew")
