"""What images hold, what lies below them, and who depends on them: seen before a cut or a restore touches anything."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stillframe.domain.errors import Conflict, Damaged, InvalidInput, NotSupported, Refused
from stillframe.domain.instance import Instance, PowerState
from stillframe.drivers.files.identity import BackingFile, Digests
from stillframe.drivers.files.images import Images
from stillframe.drivers.image_files import opening
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.qemu.declaration import Declaration, Disk
from stillframe.testing.world import MIB, SIZE, a_call, pattern
from tests.conformance.conftest import local_world
from tests.conformance.worlds import LocalWorld, ask, content, machine, run

SECRET = ("--object", "secret,id=key,data=secret")


@pytest.fixture(params=["xfs-raw", "ext4-qcow2"])
def local(request: pytest.FixtureRequest) -> Iterator[LocalWorld]:
    """With shared blocks and without, raw and qcow2: every other pair would show the same."""
    yield from local_world(request, *request.param.split("-"))


@pytest.fixture(params=["xfs", "ext4"])
def qcow2(request: pytest.FixtureRequest) -> Iterator[LocalWorld]:
    """The worlds of images that hold more than their bytes."""
    yield from local_world(request, request.param, "qcow2")


@pytest.fixture
def rebuilt(request: pytest.FixtureRequest) -> Iterator[LocalWorld]:
    """A world in which QEMU makes the copies of running instances."""
    yield from local_world(request, "ext4", "qcow2")


def image(path: Path, *options: str, form: str = "qcow2", size: int = SIZE) -> Path:
    command = ["qemu-img", "create", "-q", "-f", form, *options, str(path), str(size)]
    while True:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        # It measures how fast it can encrypt, and gives up where the kernel counts time too coarsely for that.
        if "Unable to get accurate CPU usage" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    return path


def unstated(path: Path) -> Path:
    """The image without the format of the file below it, as old programs made them."""
    header = path.read_bytes()
    # The header extension gets a type that nobody knows, and is passed over.
    assert header.count(b"\xe2\x79\x2a\xca") == 1
    path.write_bytes(header.replace(b"\xe2\x79\x2a\xca", b"\x12\x34\x56\x78"))
    return path


def litter(world: LocalWorld) -> list[str]:
    root = world.disks / ".stillframe"
    return sorted(path.name for path in root.iterdir()) if root.is_dir() else []


def restore(world: LocalWorld, instance: Instance, copy_id: str) -> None:
    """As a restore of an instance that is off does it."""
    world.storage.check_restore(instance, {instance.volume_ids[0]: copy_id})
    world.storage.restore(a_call(), instance, instance.volume_ids[0], copy_id)


def declared_by_hand(world: LocalWorld, name: str, path: Path, form: Format, project_id: str = "project") -> Instance:
    """Past everything that `instance add` looks at."""
    instance_id = str(uuid.uuid4())
    (world.instances / f"{name}.toml").write_text(
        f'id = "{instance_id}"\nname = "{name}"\nproject_id = "{project_id}"\n'
        f'[[disks]]\nname = "root"\npath = "{path}"\nformat = "{form}"\n'
    )
    return world.compute.get_instance(instance_id)


class TestEncrypted:
    @pytest.mark.parametrize("method", ["luks", "aes"])
    def test_an_encrypted_image_is_neither_declared_nor_cut(self, qcow2: LocalWorld, method: str) -> None:
        quick = ",encrypt.iter-time=10" if method == "luks" else ""
        options = f"encrypt.format={method},encrypt.key-secret=key{quick}"
        path = image(qcow2.disks / "disk", *SECRET, "-o", options)
        with pytest.raises(NotSupported, match="encrypted"):
            qcow2.declare("vm", [Disk(name="root", path=path, format=Format.QCOW2)])
        instance = declared_by_hand(qcow2, "by-hand", path, Format.QCOW2)
        with pytest.raises(NotSupported, match="encrypted"):
            qcow2.storage.check_cut(instance, instance.volume_ids)
        with pytest.raises(NotSupported, match="encrypted"):
            qcow2.storage.cut(a_call(), instance, qcow2.names(instance))
        assert litter(qcow2) == []

    def test_an_image_that_was_encrypted_since_its_copy_is_not_replaced_by_plain_text(self, qcow2: LocalWorld) -> None:
        instance = qcow2.add()
        copy = qcow2.snapshot(instance)[0]
        image(qcow2.path(instance.volume_ids[0]), *SECRET, "-o", "encrypt.format=aes,encrypt.key-secret=key")
        with pytest.raises(NotSupported, match="encrypted"):
            qcow2.storage.check_restore(instance, {instance.volume_ids[0]: copy.id})

    def test_a_raw_disk_that_qemu_decrypts_is_copied_as_bytes_or_not_at_all(self, local: LocalWorld) -> None:
        path = image(local.disks / "disk", *SECRET, "-o", "key-secret=key,iter-time=10", form="luks", size=MIB)
        disk = Disk(name="root", path=path, format=Format.RAW)
        instance = local.declare("vm", [disk])
        sealed = path.read_bytes()
        copy = local.snapshot(instance)[0]
        local.write(instance.volume_ids[0], 0, pattern(1, MIB))
        restore(local, instance, copy.id)
        assert path.read_bytes() == sealed
        command = machine(local.sockets / f"{instance.name}.qmp", ())
        drive = f"driver=luks,key-secret=key,node-name=root,file.driver=file,file.filename={path}"
        process = subprocess.Popen(
            [*command, "-object", SECRET[1], "-blockdev", drive, "-device", "virtio-blk-pci,drive=root"]
        )
        try:
            while local.compute.get_instance(instance.id).power_state is not PowerState.ACTIVE:
                assert process.poll() is None
            with pytest.raises(NotSupported, match="'luks'"):
                local.storage.check_cut(local.compute.get_instance(instance.id), instance.volume_ids)
        finally:
            process.kill()
            process.wait()


class TestRebuilt:
    """QEMU copies the data of a running image into a new one."""

    @pytest.mark.parametrize("what", ["internal snapshots", "dirty bitmaps"])
    def test_what_qemu_would_lose_refuses_the_cut(self, rebuilt: LocalWorld, what: str) -> None:
        instance = rebuilt.add()
        path = rebuilt.path(instance.volume_ids[0])
        command = ("snapshot", "-c", "s") if what == "internal snapshots" else ("bitmap", "--add")
        names = ("b",) if what == "dirty bitmaps" else ()
        run("qemu-img", *command, str(path), *names)
        rebuilt.compute.start(a_call(), instance.id)
        instance = rebuilt.compute.get_instance(instance.id)
        with pytest.raises(NotSupported, match=f"1 {what}"):
            rebuilt.storage.check_cut(instance, instance.volume_ids)
        with pytest.raises(NotSupported, match=f"1 {what}"):
            rebuilt.storage.cut(a_call(), instance, rebuilt.names(instance))
        rebuilt.compute.stop(a_call(), instance.id, 0)
        # As the message advises.
        restore(rebuilt, instance, rebuilt.snapshot(rebuilt.compute.get_instance(instance.id))[0].id)
        told = json.loads(run("qemu-img", "info", "--output=json", str(path)))
        assert told.get("snapshots") or told["format-specific"]["data"]["bitmaps"]

    @pytest.mark.parametrize(
        "options",
        [
            "extended_l2=on",
            "lazy_refcounts=on",
            "compression_type=zstd",
            "refcount_bits=64",
            "cluster_size=4k",
            "compat=0.10",
        ],
    )
    def test_how_an_image_was_made_survives(self, rebuilt: LocalWorld, options: str) -> None:
        path = image(rebuilt.disks / "disk", "-o", options)
        instance = rebuilt.declare("vm", [Disk(name="disk0", path=path, format=Format.QCOW2)])
        rebuilt.write(instance.volume_ids[0], 0, pattern(1))

        def made() -> object:
            told = json.loads(run("qemu-img", "info", "--output=json", str(path)))
            return told["cluster-size"], told["format-specific"]

        before = made()
        rebuilt.compute.start(a_call(), instance.id)
        copy = rebuilt.snapshot(rebuilt.compute.get_instance(instance.id))[0]
        rebuilt.compute.stop(a_call(), instance.id, 0)
        restore(rebuilt, instance, copy.id)
        assert made() == before
        assert rebuilt.read(instance.volume_ids[0]) == pattern(1)


class TestBelow:
    @pytest.fixture
    def folder(self, qcow2: LocalWorld) -> Path:
        image(qcow2.disks / "base.qcow2")
        run("qemu-io", "-f", "qcow2", "-c", "write -P 5 0 4096", str(qcow2.disks / "base.qcow2"))
        return qcow2.disks

    @pytest.mark.parametrize(
        "name",
        [
            "base.qcow2",
            "../disks/base.qcow2",
            "{folder}/base.qcow2",
            "file:base.qcow2",
            "file:{folder}/base.qcow2",
            'json:{{"driver":"qcow2","file":{{"driver":"file","filename":"base.qcow2"}}}}',
            'json:{{"driver":"qcow2","file.driver":"file","file.filename":"{folder}/base.qcow2"}}',
            'json:{{"driver":"qcow2","file":{{"filename":"base.qcow2","locking":"off"}}}}',
        ],
    )
    def test_a_local_file_is_understood_by_every_name_that_qemu_opens(
        self, qcow2: LocalWorld, folder: Path, name: str
    ) -> None:
        stored = name.format(folder=folder)
        path = image(folder / "top.qcow2", "-u", "-b", stored, "-F", "qcow2")
        instance = qcow2.declare("vm", [Disk(name="disk0", path=path, format=Format.QCOW2)])
        copy = qcow2.snapshot(instance)[0]
        before = path.read_bytes()
        # QEMU counts some of these names from its working folder.
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 4096", str(path)], cwd=folder, check=True)
        restore(qcow2, instance, copy.id)
        assert path.read_bytes() == before
        run("qemu-io", "-f", "qcow2", "-c", "write -P 6 8192 512", str(folder / "base.qcow2"))
        with pytest.raises(Refused, match="written to or replaced"):
            restore(qcow2, instance, copy.id)

    @pytest.mark.parametrize(
        "name",
        [
            "nbd://127.0.0.1:10809/x",
            "http://127.0.0.1/x",
            "fat:/etc",
            "host_device:/dev/null",
            'json:{"driver":"nbd","host":"127.0.0.1","port":"10809"}',
            'json:{"driver":"raw","file":{"driver":"nbd","host":"127.0.0.1","port":"10809"}}',
            'json:{"driver":"raw","offset":512,"file":{"driver":"file","filename":"base.qcow2"}}',
            'json:{"driver":"qcow2","file":{"driver":"file","filename":"base.qcow2"},"backing":null}',
            'json:{"file":{"driver":"file","filename":"base.qcow2"}}',
            'json:{"driver":"qcow2","file":{"driver":"file","filename":"base\\u0000.qcow2"}}',
            "json:{",
            "json:" + "[" * 1000,
        ],
    )
    def test_anything_else_is_refused_and_not_opened(self, qcow2: LocalWorld, folder: Path, name: str) -> None:
        path = image(folder / "top.qcow2", "-u", "-b", name, "-F", "qcow2")
        with pytest.raises(NotSupported, match="local file"):
            qcow2.declare("vm", [Disk(name="root", path=path, format=Format.QCOW2)])
        instance = declared_by_hand(qcow2, "by-hand", path, Format.QCOW2)
        with pytest.raises(NotSupported, match="local file") as refused:
            qcow2.storage.check_cut(instance, instance.volume_ids)
        assert str(qcow2.disks) not in refused.value.message

    def test_a_format_that_is_not_stated_is_told_by_a_qcow2_signature_and_by_nothing_else(
        self, qcow2: LocalWorld, folder: Path
    ) -> None:
        path = unstated(image(folder / "top.qcow2", "-u", "-b", "base.qcow2", "-F", "qcow2"))
        qcow2.declare("vm", [Disk(name="root", path=path, format=Format.QCOW2)])
        (folder / "base.raw").write_bytes(pattern(1))
        other = unstated(image(folder / "other.qcow2", "-u", "-b", "base.raw", "-F", "raw"))
        disk = Disk(name="root", path=other, format=Format.QCOW2)
        with pytest.raises(NotSupported, match=r"qemu-img rebase -u -b <its name> -F raw"):
            qcow2.declare("other", [disk])
        run("qemu-img", "rebase", "-u", "-b", "base.raw", "-F", "raw", str(other))
        qcow2.declare("other", [disk])

    def test_a_chain_that_leads_to_itself_or_nowhere_is_refused(self, qcow2: LocalWorld, folder: Path) -> None:
        for above, below in (("a", "b"), ("b", "a"), ("self", "self"), ("gone", "nothing")):
            image(folder / above, "-u", "-b", below, "-F", "qcow2")
        for name, words in (("a", "itself"), ("self", "itself"), ("gone", "No such file")):
            with pytest.raises(Refused, match=words):
                qcow2.declare("vm", [Disk(name="root", path=folder / name, format=Format.QCOW2)])

    def test_a_chain_has_an_end(self, qcow2: LocalWorld, folder: Path) -> None:
        image(folder / "0", size=MIB)
        for number in range(1, 66):
            shutil.copy(folder / str(number - 1), folder / str(number))
            run("qemu-img", "rebase", "-u", "-b", str(number - 1), "-F", "qcow2", str(folder / str(number)))
        qcow2.declare("deep", [Disk(name="root", path=folder / "64", format=Format.QCOW2)])
        with pytest.raises(Refused, match="64 images"):
            qcow2.declare("deeper", [Disk(name="root", path=folder / "65", format=Format.QCOW2)])

    def test_a_backing_file_is_known_by_its_content(self, qcow2: LocalWorld, folder: Path) -> None:
        path = image(folder / "top.qcow2", "-b", "base.qcow2", "-F", "qcow2")
        instance = qcow2.declare("vm", [Disk(name="disk0", path=path, format=Format.QCOW2)])
        base, spare = folder / "base.qcow2", qcow2.folder / "spare"
        times = base.stat()
        copy = qcow2.snapshot(instance)[0]
        run("cp", "-a", str(base), str(spare))
        spare.replace(base)
        restore(qcow2, instance, copy.id)
        base.touch()
        restore(qcow2, instance, copy.id)
        saved = base.read_bytes()
        run("qemu-io", "-f", "qcow2", "-c", "write -P 6 0 512", str(base))
        os.utime(base, ns=(times.st_atime_ns, times.st_mtime_ns))
        with pytest.raises(Refused, match="number 1 in its backing chain"):
            restore(qcow2, instance, copy.id)
        base.write_bytes(saved)
        restore(qcow2, instance, copy.id)
        assert qcow2.read(instance.volume_ids[0])[:4096] == bytes([5]) * 4096

    def test_a_record_of_a_release_without_digests_is_judged_by_size_and_time(self, tmp_path: Path) -> None:
        path = tmp_path / "base"
        path.write_bytes(pattern(1))
        found, digests = path.stat(), Digests()
        old = BackingFile(str(path), "raw", found.st_size, found.st_mtime_ns, inode=1)
        with opening.file(path) as file:
            assert digests.is_same(file, old)
            assert not digests.is_same(file, replace(old, size=1))
            new = digests.record(file, "raw", lambda: None)
        assert new.ctime_ns is None  # it has just been written
        path.write_bytes(pattern(2))
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
        with opening.file(path) as file:
            assert not digests.is_same(file, new)
            assert not digests.is_same(file, replace(new, size=SIZE + 1))

    def test_zeroes_and_holes_are_the_same_content(self, tmp_path: Path) -> None:
        for name in ("holes", "zeroes"):
            (tmp_path / name).write_bytes(pattern(1, MIB) + (b"" if name == "holes" else bytes(9 * MIB)))
        os.truncate(tmp_path / "holes", 10 * MIB)
        records = []
        for name in ("holes", "zeroes"):
            with opening.file(tmp_path / name) as file:
                records.append(Digests().record(file, "raw", lambda: None).digest)
        assert records[0] == records[1]


class TestDependents:
    @pytest.fixture
    def template(self, qcow2: LocalWorld) -> tuple[Instance, Path, str]:
        """A declared image, its path, and a copy of it; the image has changed since."""
        path = image(qcow2.disks / "template.qcow2")
        instance = qcow2.declare("template", [Disk(name="disk0", path=path, format=Format.QCOW2)])
        copy = qcow2.snapshot(instance)[0]
        qcow2.write(instance.volume_ids[0], 0, pattern(1))
        return instance, path, copy.id

    def test_a_declared_image_over_another_keeps_what_is_below_it(
        self, qcow2: LocalWorld, template: tuple[Instance, Path, str], caplog: pytest.LogCaptureFixture
    ) -> None:
        instance, path, copy_id = template
        middle = image(qcow2.disks / "middle.qcow2", "-b", path.name, "-F", "qcow2")
        clone = image(qcow2.disks / "clone.qcow2", "-b", middle.name, "-F", "qcow2")
        qcow2.declare("secret-name", [Disk(name="disk0", path=clone, format=Format.QCOW2)], "another")
        with caplog.at_level(logging.WARNING), pytest.raises(Refused, match="below it") as refused:
            restore(qcow2, instance, copy_id)
        assert "secret-name" not in refused.value.message
        assert "secret-name" in caplog.text
        assert content(clone, Format.QCOW2, qcow2.folder) == pattern(1)
        qcow2.snapshot(instance)
        # As the message advises.
        run("qemu-img", "rebase", "-b", "", str(clone))
        middle.unlink()
        restore(qcow2, instance, copy_id)
        assert qcow2.read(instance.volume_ids[0]) == bytes(SIZE)
        assert content(clone, Format.QCOW2, qcow2.folder) == pattern(1)

    def test_an_overlay_that_nobody_declared_refuses_the_restore(
        self, qcow2: LocalWorld, template: tuple[Instance, Path, str]
    ) -> None:
        instance, path, copy_id = template
        overlay = image(qcow2.disks / "secret-name", "-b", path.name, "-F", "qcow2")
        with pytest.raises(Refused, match="qemu-img commit") as refused:
            restore(qcow2, instance, copy_id)
        assert overlay.name not in refused.value.message
        with pytest.raises(Refused):
            qcow2.storage.restore(a_call(), instance, instance.volume_ids[0], copy_id)
        assert qcow2.read(instance.volume_ids[0]) == pattern(1)
        # As the message advises.
        run("qemu-img", "commit", "-q", str(overlay))
        overlay.unlink()
        restore(qcow2, instance, copy_id)

    def test_what_only_a_copy_has_below_it_is_not_replaced_as_long_as_there_is_the_copy(
        self, qcow2: LocalWorld
    ) -> None:
        template, overlay = qcow2.add(), image(qcow2.disks / "overlay", size=SIZE)
        below = qcow2.path(template.volume_ids[0])
        old = qcow2.snapshot(template)[0]
        qcow2.write(template.volume_ids[0], 0, pattern(1))
        run("qemu-img", "rebase", "-u", "-b", str(below), "-F", "qcow2", str(overlay))
        clone = qcow2.declare("clone", [Disk(name="disk0", path=overlay, format=Format.QCOW2)])
        copy = qcow2.snapshot(clone)[0]
        # As the message about the clone itself says.
        run("qemu-img", "rebase", "-b", "", str(overlay))
        with pytest.raises(Refused, match="snapshot of another disk"):
            restore(qcow2, template, old.id)
        restore(qcow2, clone, copy.id)
        assert qcow2.read(clone.volume_ids[0]) == pattern(1)
        run("qemu-img", "rebase", "-b", "", str(overlay))
        qcow2.storage.delete(a_call(), copy.reference)
        restore(qcow2, template, old.id)
        assert qcow2.read(template.volume_ids[0]) == bytes(SIZE)

    def test_an_image_below_that_changes_between_cut_and_completion_makes_no_copy(self, qcow2: LocalWorld) -> None:
        below = image(qcow2.disks / "below")
        disk = Disk(
            name="disk0", path=image(qcow2.disks / "above", "-b", str(below), "-F", "qcow2"), format=Format.QCOW2
        )
        instance = qcow2.declare("above", [disk])
        cut = qcow2.storage.cut(a_call(), instance, qcow2.names(instance))
        run("qemu-io", "-c", f"write -P 1 0 {MIB}", str(below))
        with pytest.raises(Damaged, match="written to or replaced"):
            qcow2.storage.complete(a_call(), cut.snapshots[0].reference)
        assert qcow2.snapshot(instance)[0].ready

    def test_a_header_that_a_guest_wrote_into_its_raw_disk_holds_nobody_up(
        self, qcow2: LocalWorld, template: tuple[Instance, Path, str]
    ) -> None:
        instance, path, copy_id = template
        forged = qcow2.disks / "raw"
        forged.write_bytes(bytes(SIZE))
        qcow2.declare("guest", [Disk(name="disk0", path=forged, format=Format.RAW)])
        forged.write_bytes(image(qcow2.folder / "header", "-b", str(path), "-F", "qcow2").read_bytes())
        restore(qcow2, instance, copy_id)


class TestOtherNames:
    def test_a_hard_link_refuses_the_restore_until_it_is_gone(self, local: LocalWorld) -> None:
        instance = local.add()
        copy = local.snapshot(instance)[0]
        path = local.path(instance.volume_ids[0])
        other = local.folder / "other"
        other.hardlink_to(path)
        with pytest.raises(Refused, match="hard link"):
            restore(local, instance, copy.id)
        other.unlink()
        restore(local, instance, copy.id)

    def test_one_image_in_two_declarations_is_neither_cut_nor_restored(self, local: LocalWorld) -> None:
        instance = local.add()
        copy = local.snapshot(instance)[0]
        path = local.path(instance.volume_ids[0])
        other = local.disks / "other"
        other.hardlink_to(path)
        second = declared_by_hand(local, "secret-name", other, local.form, "another")
        for one in (instance, second):
            with pytest.raises(Refused, match="attached as another disk") as refused:
                local.storage.check_cut(one, one.volume_ids)
            assert ("secret-name" in refused.value.message) is (one is second)
        with pytest.raises(Refused, match="attached as another disk"):
            restore(local, instance, copy.id)
        (local.instances / "secret-name.toml").unlink()
        other.unlink()
        restore(local, instance, copy.id)

    def test_one_image_under_two_names_is_not_declared(self, local: LocalWorld) -> None:
        path = image(local.disks / "disk", form=local.form)
        (local.disks / "other").hardlink_to(path)
        disks = [Disk(name=name, path=local.disks / name, format=local.form) for name in ("disk", "other")]
        with pytest.raises(Conflict, match="the same file"):
            local.declare("vm", disks)

    def test_a_link_is_followed_when_it_is_declared_and_never_again(self, local: LocalWorld) -> None:
        first, second = (image(local.disks / name, form=local.form) for name in ("first", "second"))
        link = local.disks / "link"
        link.symlink_to(first)
        instance = local.declare("vm", [Disk(name="disk0", path=link, format=local.form)])
        copy = local.snapshot(instance)[0]
        link.unlink()
        link.symlink_to(second)
        assert local.path(instance.volume_ids[0]) == first
        untouched = second.read_bytes()
        local.write(instance.volume_ids[0], 0, pattern(1))
        restore(local, instance, copy.id)
        assert local.read(instance.volume_ids[0]) == bytes(SIZE)
        assert second.read_bytes() == untouched

    def test_a_folder_in_which_others_may_write_is_not_declared(self, local: LocalWorld) -> None:
        path = image(local.disks / "disk", form=local.form)
        local.disks.chmod(0o777)
        disk = Disk(name="disk0", path=path, format=local.form)
        with pytest.raises(InvalidInput, match=f"chmod go-w {local.disks}"):
            local.declare("vm", [disk])
        local.disks.chmod(0o755)
        local.declare("vm", [disk])


class TestMounts:
    @pytest.fixture
    def bound(self) -> Iterator[Callable[[Path, Path], None]]:
        """Binds one thing over another, for as long as the test lasts."""
        points = []

        def bind(thing: Path, point: Path) -> None:
            run("mount", "--bind", str(thing), str(point))
            points.append(point)

        yield bind
        for point in points:
            run("umount", "--lazy", str(point))

    def test_a_file_of_the_same_file_system_bound_over_a_disk_is_neither_cut_nor_replaced(
        self, local: LocalWorld, bound: Callable[[Path, Path], None]
    ) -> None:
        instance = local.add()
        copy = local.snapshot(instance)[0]
        path = local.path(instance.volume_ids[0])
        other = Path(shutil.copy(path, local.disks / "other"))
        bound(other, path)
        with pytest.raises(Refused, match="mount of its own"):
            local.snapshot(instance)
        with pytest.raises(Refused, match="mount of its own"):
            local.storage.cut(a_call(), instance, local.names(instance))
        with pytest.raises(Refused, match="mount of its own"):
            local.storage.check_restore(instance, {instance.volume_ids[0]: copy.id})

    def test_copies_that_would_lie_on_another_mount_are_not_made(
        self, local: LocalWorld, bound: Callable[[Path, Path], None]
    ) -> None:
        instance = local.add()
        copy = local.snapshot(instance)[0]
        kept, elsewhere = local.disks / ".stillframe", local.folder / "elsewhere"
        shutil.copytree(kept, elsewhere)
        elsewhere.chmod(0o700)
        bound(elsewhere, kept)
        with pytest.raises(Refused, match="unmount it"):
            local.snapshot(instance)
        with pytest.raises(Refused, match="unmount it"):
            local.storage.check_restore(instance, {instance.volume_ids[0]: copy.id})


class TestHolders:
    @pytest.fixture
    def looped(self, local: LocalWorld) -> Iterator[tuple[Instance, str]]:
        """An instance whose disk is a loop device on the host, and a copy from before."""
        instance = local.add((64 * MIB,))
        copy = local.snapshot(instance)[0]
        device = run("losetup", "--find", "--show", str(local.path(instance.volume_ids[0]))).strip()
        yield instance, copy.id
        run("losetup", "--detach", device)

    def test_a_disk_that_is_a_loop_device_is_neither_cut_nor_restored(
        self, local: LocalWorld, looped: tuple[Instance, str]
    ) -> None:
        instance, copy_id = looped
        for _ in range(2):
            with pytest.raises(Refused, match="loop device"):
                restore(local, instance, copy_id)
            with pytest.raises(Refused, match="loop device"):
                local.storage.check_cut(instance, instance.volume_ids)

    def test_a_program_that_writes_refuses_the_restore_until_it_ends(self, local: LocalWorld) -> None:
        instance = local.add()
        copy = local.snapshot(instance)[0]
        with local.path(instance.volume_ids[0]).open("r+b"), pytest.raises(Refused, match="open for writing"):
            restore(local, instance, copy.id)
        with local.path(instance.volume_ids[0]).open("rb"):
            restore(local, instance, copy.id)


class TestRunning:
    """A restore would shut it down: what can be seen only while it runs is seen before."""

    @pytest.fixture
    def running(self, local: LocalWorld) -> tuple[Instance, str]:
        instance = local.add()
        copy = local.snapshot(instance)[0]
        local.compute.start(a_call(), instance.id)
        return local.compute.get_instance(instance.id), copy.id

    def test_an_overlay_that_somebody_made_refuses_the_restore(
        self, local: LocalWorld, running: tuple[Instance, str]
    ) -> None:
        instance, copy_id = running
        local.storage.check_restore(instance, {instance.volume_ids[0]: copy_id})
        overlay = {"node-name": "disk0", "snapshot-file": str(local.folder / "over"), "format": "qcow2"}
        named = {**overlay, "snapshot-node-name": "over"}
        ask(local.second_monitor(instance.id), "blockdev-snapshot-sync", named)
        with pytest.raises(Refused, match="overlay"):
            local.storage.check_restore(instance, {instance.volume_ids[0]: copy_id})
        with pytest.raises(Refused, match="overlay"):
            local.storage.cut(a_call(), instance, local.names(instance))

    def test_a_block_job_of_somebody_else_refuses_the_restore(
        self, local: LocalWorld, running: tuple[Instance, str]
    ) -> None:
        instance, copy_id = running
        mirror = {"device": "disk0", "target": str(local.folder / "mirror"), "sync": "full", "format": "raw"}
        ask(local.second_monitor(instance.id), "drive-mirror", {**mirror, "job-id": "theirs"})
        with pytest.raises(Refused, match="mirror"):
            local.storage.check_restore(instance, {instance.volume_ids[0]: copy_id})
        if not local.files.can_clone(local.disks):
            with pytest.raises(Refused, match="mirror"):
                local.storage.check_cut(instance, instance.volume_ids)
        ask(local.second_monitor(instance.id), "block-job-cancel", {"device": "theirs", "force": True})

    def test_an_instance_that_nobody_can_shut_down_is_told_at_the_request(
        self, local: LocalWorld, running: tuple[Instance, str]
    ) -> None:
        instance, _ = running
        path = local.instances / f"{instance.name}.toml"
        path.write_text("".join(line for line in path.open() if not line.startswith("qmp_socket")))
        with pytest.raises(NotSupported, match="qmp_socket"):
            local.compute.check_power(instance.id, PowerState.SHUTOFF)
        ask(local.sockets / f"{instance.name}.second", "quit")


def test_room_is_asked_for_all_volumes_together(plain: LocalWorld) -> None:
    instance = plain.add((48 * MIB, 48 * MIB))
    for volume_id in instance.volume_ids:
        plain.write(volume_id, 0, pattern(1, 48 * MIB))
    copies = dict(zip(instance.volume_ids, [one.id for one in plain.snapshot(instance)], strict=True))
    filler = plain.folder / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, plain.files.free(plain.folder) - 72 * MIB)
    for volume_id, copy_id in copies.items():
        plain.storage.check_restore(instance, {volume_id: copy_id})
    with pytest.raises(Exception, match="make room"):
        plain.storage.check_restore(instance, copies)


def test_one_bad_file_hides_no_other(local: LocalWorld) -> None:
    good, bad = local.add(), local.add((SIZE, SIZE, SIZE))
    paths = [local.path(volume_id) for volume_id in bad.volume_ids]
    paths[0].unlink()
    os.mkfifo(paths[0])
    paths[1].unlink()
    paths[1].symlink_to(paths[1].name)
    paths[2].write_bytes(b"QFI\xfb" + bytes(72))
    sizes = {one.id: (one.size, one.status) for one in local.storage.list_volumes(None)}
    assert sizes[good.volume_ids[0]] == (SIZE, "in-use")
    wrong = [(0, "error")] * (2 if local.form is Format.RAW else 3)
    assert [sizes[volume_id] for volume_id in bad.volume_ids][: len(wrong)] == wrong
    assert {one.id for one in local.compute.list_instances(None)} == {good.id, bad.id}


def test_an_instance_that_cannot_be_looked_at_hides_no_other(local: LocalWorld) -> None:
    good, bad = local.add(), local.add()
    path = local.path(bad.volume_ids[0])
    declared = local.instances / f"{bad.name}.toml"
    # A name that the system refuses to look at, as it does with a folder that the service may not enter.
    declared.write_text(declared.read_text().replace(str(path), str(path.parent / ("n" * 300))))
    states = {one.id: one.power_state for one in local.compute.list_instances(None)}
    assert states == {good.id: PowerState.SHUTOFF, bad.id: PowerState.ERROR}
    volumes = {one.instance_id: one.status for one in local.storage.list_volumes(None)}
    assert volumes == {good.id: "in-use", bad.id: "error"}
    with pytest.raises(Refused, match="cannot be looked at") as refused:
        local.compute.get_instance(bad.id)
    assert str(local.folder) not in refused.value.message
    assert local.compute.get_instance(good.id).power_state is PowerState.SHUTOFF


def test_a_declaration_with_bad_images_is_refused_with_path_and_key(local: LocalWorld) -> None:
    path = local.disks / "disk"
    path.write_bytes(b"QFI\xfb" + bytes(600))
    disk = Disk(name="root", path=path, format=Format.QCOW2)
    one = Declaration(id=str(uuid.uuid4()), name="vm", project_id="p", disks=(disk,))
    with pytest.raises(Refused, match=rf"^disks\.0\.path: {path}: Its qcow2 header has the version 0"):
        local.declarations.add(local.files, Images(), one)
    assert local.declarations.all() == []
