"""Who else has a disk while it is copied or replaced: noticed, and then nothing comes of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from stillframe.domain.errors import Refused
from stillframe.domain.snapshot import CopyKind
from stillframe.drivers.image_files import opening
from stillframe.drivers.image_files.alone import alone
from stillframe.drivers.image_files.files import Files
from stillframe.testing.world import MIB, SIZE, a_call, pattern
from tests.conformance.worlds import LocalWorld
from tests.harness.surround import surround


def write_in(path: Path, at: int = 0) -> None:
    """Open a file, write, close: as quickly as it can be done, and past all locks of QEMU's."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"x" * 4096)


def asked_for(world: LocalWorld) -> bool:
    """Whether somebody waits for one of the world's disks until its lease is given back."""
    inodes = set[str]()
    for _, disk in world.declarations.disks():
        with suppress(FileNotFoundError):
            inodes.add(str(disk.path.stat().st_ino))
    waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "BREAKING" in line]
    return any(word.rpartition(":")[2] in inodes for words in waiting for word in words if ":" in word)


@contextmanager
def meddling(world: LocalWorld, effect: str, meddle: Callable[[], None]) -> Iterator[None]:
    """A world during one of whose effects somebody begins to do something, which may have to wait."""
    meddlers: list[threading.Thread] = []

    def around(name: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == effect:
            meddlers.append(threading.Thread(target=meddle, daemon=True))
            meddlers[-1].start()
            begun = time.monotonic()
            while meddlers[-1].is_alive() and not asked_for(world) and time.monotonic() - begun < 30:
                time.sleep(0.01)
        return method(*args, **kwargs)

    world.use(surround(Files(), around))
    yield
    world.use(Files())
    assert meddlers
    for thread in meddlers:
        thread.join(60)
        assert not thread.is_alive()


def noticed_by_another_user(disk: Path, meddle: Callable[[], None]) -> bool:
    """Whether somebody who may not lease the disk notices what is done to it."""
    began, go_on = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        code = 2
        try:
            os.setresuid(1234, 1234, 1234)
            with opening.file(disk) as file, alone(file) as guard:
                os.write(began[1], b".")
                os.read(go_on[0], 1)
                guard.finish()
            code = 0
        except Refused:
            code = 1
        finally:
            os._exit(code)
    os.read(began[0], 1)
    # Two changes within one tick of the kernel's clock have the same time.
    time.sleep(0.05)
    meddle()
    os.write(go_on[1], b".")
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for end in (*began, *go_on):
        os.close(end)
    assert code in (0, 1)
    return code == 1


@contextmanager
def looped(path: Path) -> Iterator[Path]:
    device = subprocess.run(
        ["losetup", "--find", "--show", str(path)], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        yield Path(device)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


class TestCut:
    def test_a_disk_that_is_opened_for_writing_meanwhile_is_not_copied(self, local: LocalWorld) -> None:
        instance = local.add()
        local.write(instance.volume_ids[0], 0, pattern(1))
        effect = "clone" if Files().can_clone(local.disks) else "copy"
        path = local.path(instance.volume_ids[0])
        meddler = meddling(local, effect, lambda: write_in(path, SIZE - 4096))
        with meddler, pytest.raises(Refused, match="while it was worked on"):
            local.storage.cut(a_call(), instance, local.names(instance, "s"))
        assert [one.ready for one in local.storage.find("s")] == [False]
        assert local.snapshot(instance, "s")[0].ready

    @pytest.mark.parametrize("hidden", [False, True])
    def test_the_times_tell_without_a_lease(self, *, hidden: bool) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root can act for a user to whom no lease is given")
        disk = Path(tempfile.mkdtemp(prefix="sf-", dir="/var/tmp")) / "disk"
        disk.parent.chmod(0o755)
        disk.write_bytes(bytes(SIZE))

        def write() -> None:
            before = disk.stat()
            write_in(disk)
            if hidden:
                os.utime(disk, ns=(before.st_atime_ns, before.st_mtime_ns))

        try:
            assert noticed_by_another_user(disk, lambda: None) is False
            assert noticed_by_another_user(disk, write) is True
        finally:
            shutil.rmtree(disk.parent)

    def test_a_machine_that_starts_meanwhile_gets_its_disk_and_nothing_is_kept_of_the_copy(
        self, plain: LocalWorld
    ) -> None:
        instance = plain.add()
        codes: list[int] = []

        def start() -> None:
            order = ("qemu-io", "-f", plain.form, "-c", "write 0 4096", str(plain.path(instance.volume_ids[0])))
            codes.append(subprocess.run(order, check=False, capture_output=True, timeout=60).returncode)

        with meddling(plain, "copy", start), pytest.raises(Refused, match="while it was worked on"):
            plain.storage.cut(a_call(), instance, plain.names(instance))
        assert codes == [0]

    @pytest.mark.parametrize("kind", CopyKind)
    def test_a_disk_with_a_loop_device_on_it_is_not_cut(self, local: LocalWorld, kind: CopyKind) -> None:
        instance = local.add()
        with looped(local.path(instance.volume_ids[0])):
            with pytest.raises(Refused, match="loop device"):
                local.storage.check_cut(instance, instance.volume_ids)
            with pytest.raises(Refused, match="loop device"):
                local.storage.cut(a_call(), instance, local.names(instance, kind=kind))
        assert local.snapshot(instance, kind=kind)[0].ready


class TestRestore:
    def test_a_disk_that_is_open_for_writing_is_not_replaced(self, local: LocalWorld) -> None:
        instance = local.add()
        volume_id = instance.volume_ids[0]
        copy = local.snapshot(instance)[0]
        local.write(volume_id, 0, pattern(1))
        with local.path(volume_id).open("r+b"), pytest.raises(Refused, match="open for writing"):
            local.storage.restore(a_call(), instance, volume_id, copy.id)
        with looped(local.path(volume_id)), pytest.raises(Refused, match="loop device"):
            local.storage.restore(a_call(), instance, volume_id, copy.id)
        assert local.read(volume_id) == pattern(1)
        local.storage.restore(a_call(), instance, volume_id, copy.id)
        assert local.read(volume_id) == bytes(SIZE)

    def test_a_disk_that_is_opened_for_writing_until_the_last_moment_is_not_replaced(self, local: LocalWorld) -> None:
        instance = local.add()
        volume_id = instance.volume_ids[0]
        copy = local.snapshot(instance)[0]
        local.write(volume_id, 0, pattern(1))
        inode = local.path(volume_id).stat().st_ino
        for effect in ("draft", "sync_draft", "show"):
            meddler = meddling(local, effect, lambda: write_in(local.path(volume_id), SIZE - 4096))
            with meddler, pytest.raises(Refused, match="while it was worked on"):
                local.storage.restore(a_call(), instance, volume_id, copy.id)
        assert local.path(volume_id).stat().st_ino == inode
        assert [path.name for path in (local.disks / ".stillframe").iterdir()] == [copy.id]


class TestPlace:
    """What is renamed over a disk leaves the file that is open as it was, but for its name."""

    @staticmethod
    def put_over(path: Path) -> None:
        fresh = path.with_name("fresh")
        fresh.write_bytes(b"another disk")
        fresh.rename(path)

    def test_a_disk_that_gives_way_to_another_one_meanwhile_is_not_copied(self, local: LocalWorld) -> None:
        instance = local.add()
        path = local.path(instance.volume_ids[0])
        effect = "clone" if Files().can_clone(local.disks) else "copy"
        meddler = meddling(local, effect, lambda: self.put_over(path))
        with meddler, pytest.raises(Refused, match="while it was worked on"):
            local.storage.cut(a_call(), instance, local.names(instance))

    @pytest.mark.parametrize("meddle", [put_over, Path.unlink], ids=["replaced", "removed"])
    def test_what_takes_the_place_of_a_disk_meanwhile_is_not_lost(
        self, local: LocalWorld, meddle: Callable[[Path], None]
    ) -> None:
        instance = local.add()
        path, copy = local.path(instance.volume_ids[0]), local.snapshot(instance)[0]
        meddler = meddling(local, "show", lambda: meddle(path))
        with meddler, pytest.raises(Refused, match="while it was worked on"):
            local.storage.restore(a_call(), instance, instance.volume_ids[0], copy.id)
        assert not path.exists() or path.read_bytes() == b"another disk"
        assert [path.name for path in (local.disks / ".stillframe").iterdir()] == [copy.id]


class TestNames:
    def test_a_disk_with_another_name_is_neither_cut_nor_replaced(self, local: LocalWorld) -> None:
        instance = local.add()
        volume_id = instance.volume_ids[0]
        copy = local.snapshot(instance)[0]
        other = local.folder / "another-name"
        other.hardlink_to(local.path(volume_id))
        with pytest.raises(Refused, match="hard link"):
            local.storage.check_cut(instance, instance.volume_ids)
        with pytest.raises(Refused, match="hard link"):
            local.storage.cut(a_call(), instance, local.names(instance))
        with pytest.raises(Refused, match="hard link"):
            local.storage.check_restore(instance, {volume_id: copy.id})
        with pytest.raises(Refused, match="hard link"):
            local.storage.restore(a_call(), instance, volume_id, copy.id)
        other.unlink()
        local.storage.restore(a_call(), instance, volume_id, copy.id)

    def test_a_safety_copy_is_no_other_name(self, plain: LocalWorld) -> None:
        instance = plain.add()
        volume_id = instance.volume_ids[0]
        old = plain.snapshot(instance)[0]
        safety = plain.snapshot(instance, kind=CopyKind.SAFETY)[0]
        assert plain.path(volume_id).stat().st_nlink == 2
        plain.storage.restore(a_call(), instance, volume_id, old.id)
        plain.storage.restore(a_call(), instance, volume_id, safety.id)
        plain.storage.restore(a_call(), instance, volume_id, safety.id)
        assert plain.snapshot(instance)[0].ready


class TestSizes:
    @pytest.mark.parametrize("size", [1, 1000, 1025, MIB + 1])
    @pytest.mark.parametrize("runs", [False, True], ids=["off", "running"])
    def test_a_raw_disk_of_any_size_comes_back_with_it_by_every_method(
        self, local: LocalWorld, size: int, *, runs: bool
    ) -> None:
        if local.form != "raw":
            pytest.skip("a qcow2 image has a size in sectors")
        instance = local.add((MIB,))
        path, volume_id = local.path(instance.volume_ids[0]), instance.volume_ids[0]
        content = os.urandom(size)
        path.write_bytes(content)
        if runs:
            local.compute.start(a_call(), instance.id)
        copy = local.snapshot(local.compute.get_instance(instance.id))[0]
        local.compute.stop(a_call(), instance.id, 0)
        safety = local.snapshot(local.compute.get_instance(instance.id), kind=CopyKind.SAFETY)[0]
        for one, more in ((copy, 0), (safety, -size % 512), (copy, -size % 512)):
            # A guest that writes to the last sector makes all of it a part of the file.
            path.write_bytes(bytes(size + more))
            local.storage.check_restore(instance, {volume_id: copy.id})
            local.storage.restore(a_call(), instance, volume_id, one.id)
            assert path.stat().st_size == size
        assert path.read_bytes() == content
