"""Another user of the machine, who owns the folder of a disk or once did: what they get is nothing.

Each act of theirs is done by a process that really is theirs.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stillframe.domain.errors import Refused, StillframeError
from stillframe.domain.instance import Instance
from stillframe.domain.snapshot import CopyKind
from stillframe.drivers.files.takeover import TakeOver
from stillframe.drivers.image_files import opening
from stillframe.drivers.image_files.files import Files
from stillframe.drivers.image_files.formats import Format
from stillframe.testing.world import SIZE, a_call, pattern
from tests.conformance.worlds import LocalWorld

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user")

NEIGHBOUR = 65534
SECRET = b"what only root may read".ljust(SIZE, b".")


@pytest.fixture
def world() -> Iterator[LocalWorld]:
    """A world whose folders the neighbour can enter, with a secret that they cannot read."""
    folder = Path(tempfile.mkdtemp(prefix="sf-", dir="/var/tmp"))
    folder.chmod(0o755)
    world = LocalWorld(folder, Format.RAW)
    (folder / "secret").write_bytes(SECRET)
    (folder / "secret").chmod(0o600)
    try:
        yield world
    finally:
        world.close()
        shutil.rmtree(folder)


def neighbour(act: Callable[[], object]) -> bool:
    """Do something as the neighbour, without any group or right of ours; whether it succeeded."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NEIGHBOUR, NEIGHBOUR, NEIGHBOUR)
            os.setresuid(NEIGHBOUR, NEIGHBOUR, NEIGHBOUR)
            act()
        except OSError:
            os._exit(1)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def may_look(path: Path) -> bool:
    """Whether the neighbour can read a file or list a folder."""
    return neighbour(lambda: list(path.iterdir()) if path.is_dir() else path.read_bytes())


def give_away(folder: Path) -> None:
    os.chown(folder, NEIGHBOUR, NEIGHBOUR)


def kept(world: LocalWorld) -> tuple[Instance, str]:
    """An instance with a snapshot of content 1, and content 2 in its disk."""
    instance = world.add()
    world.write(instance.volume_ids[0], 0, pattern(1))
    copy_id = world.snapshot(instance)[0].id
    world.write(instance.volume_ids[0], 0, pattern(2))
    return instance, copy_id


def every_way(world: LocalWorld, instance: Instance, copy_id: str) -> None:
    """Try whatever the service does for a tenant with this disk; all of it is refused in words of ours."""
    volume_id, call = instance.volume_ids[0], a_call()
    ways: list[Callable[[], object]] = [
        lambda: world.storage.check_cut(instance, instance.volume_ids),
        lambda: world.storage.cut(call, instance, world.names(instance)),
        lambda: world.storage.cut(call, instance, world.names(instance, kind=CopyKind.SAFETY)),
        lambda: world.storage.check_restore(instance, {volume_id: copy_id}),
        lambda: world.storage.restore(call, instance, volume_id, copy_id),
    ]
    for way in ways:
        with pytest.raises(StillframeError) as refusal:
            way()
        assert str(world.folder) not in refusal.value.message


def mend(disk: Path) -> None:
    """What the doctor says, until the disk can be opened."""
    for _ in range(5):
        try:
            with opening.file(disk):
                return
        except opening.Unverified as problem:
            subprocess.run(["/bin/sh", "-c", problem.mend], check=True)
    raise AssertionError


def test_a_link_in_the_place_of_a_copy_s_data_reads_nothing(world: LocalWorld) -> None:
    instance, copy_id = kept(world)
    disk = world.path(instance.volume_ids[0])
    give_away(world.disks)
    root = world.disks / ".stillframe"

    def forge() -> None:
        root.rename(world.disks / ".old")
        (root / copy_id).mkdir(parents=True)
        (root / copy_id / "data").symlink_to(world.folder / "secret")
        (root / copy_id / "meta.json").write_text("{}")

    assert neighbour(forge)
    every_way(world, instance, copy_id)
    # Mended by the book, the folder is ours again, and what they put into it is not.
    mend(disk)
    every_way(world, instance, copy_id)
    assert disk.read_bytes() == pattern(2)
    assert (world.folder / "secret").read_bytes() == SECRET


def test_a_link_in_the_place_of_the_disk_writes_nothing(world: LocalWorld) -> None:
    instance, copy_id = kept(world)
    give_away(world.disks)
    disk = world.path(instance.volume_ids[0])

    def swap() -> None:
        disk.rename(f"{disk}.old")
        disk.symlink_to(world.folder / "secret")

    assert neighbour(swap)
    every_way(world, instance, copy_id)
    assert (world.folder / "secret").read_bytes() == SECRET
    assert stat.S_IMODE((world.folder / "secret").stat().st_mode) == 0o600


@pytest.mark.parametrize("mended", [False, True])
def test_a_link_in_the_place_of_the_folder_of_copies_leads_nowhere(world: LocalWorld, *, mended: bool) -> None:
    instance = world.add()
    elsewhere = world.folder / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    give_away(world.disks)
    assert neighbour(lambda: (world.disks / ".stillframe").symlink_to(elsewhere))
    if mended:
        mend(world.path(instance.volume_ids[0]))
    with pytest.raises(Refused):
        world.storage.cut(a_call(), instance, world.names(instance))
    assert list(elsewhere.iterdir()) == []


def test_a_folder_of_copies_that_is_the_neighbour_s_is_not_used(world: LocalWorld) -> None:
    instance = world.add()
    give_away(world.disks)
    assert neighbour(lambda: (world.disks / ".stillframe").mkdir(0o777))
    mend(world.path(instance.volume_ids[0]))
    with pytest.raises(Refused):
        world.storage.cut(a_call(), instance, world.names(instance))
    assert list((world.disks / ".stillframe").iterdir()) == []


def test_forged_records_of_the_release_before_are_not_taken_over(world: LocalWorld) -> None:
    instance, copy_id = kept(world)
    record = next((world.state / "copies").iterdir())
    told = record.read_text()
    record.unlink()
    shutil.rmtree(world.disks / ".stillframe")
    notes = world.state / "roots"
    notes.mkdir()
    (notes / "note").write_text(str(world.disks / ".stillframe"))
    give_away(world.disks)
    folder = world.disks / ".stillframe" / copy_id

    def forge() -> None:
        folder.mkdir(parents=True)
        (folder / "data").symlink_to(world.folder / "secret")
        (folder / "meta.json").write_text(told)

    assert neighbour(forge)
    for _ in range(2):
        TakeOver(Files(), world.state).run()
        assert world.storage.find(None) == []
        mend(world.path(instance.volume_ids[0]))


def test_what_the_service_makes_is_closed_to_the_neighbour(world: LocalWorld) -> None:
    instance, copy_id = kept(world)
    world.storage.cut(a_call(), instance, world.names(instance))
    for made in (world.disks / ".stillframe", world.state / "copies"):
        for path in (made, *made.rglob("*")):
            assert not may_look(path), path
    assert stat.S_IMODE(next((world.state / "copies").glob(f"*{copy_id}")).stat().st_mode) == 0o600
    assert stat.S_IMODE((world.disks / ".stillframe" / copy_id).stat().st_mode) == 0o700


def test_a_copy_gives_the_owning_group_no_more_than_the_access_list_of_the_disk(world: LocalWorld) -> None:
    instance = world.add()
    disk = world.path(instance.volume_ids[0])
    os.chown(disk, 0, NEIGHBOUR)
    # One more user may read and write; the owning group may not, though the mask shows in its place in the mode.
    nobody = 0xFFFFFFFF
    entries = [(1, 6, nobody), (2, 6, 1234), (4, 0, nobody), (16, 6, nobody), (32, 0, nobody)]
    listed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(disk, "system.posix_acl_access", listed)
    copy_id = world.snapshot(instance)[0].id
    data = world.disks / ".stillframe" / copy_id / "data"
    shown = world.folder / "shown"
    shown.hardlink_to(data)
    try:
        assert os.getxattr(shown, "system.posix_acl_access") == listed
        for path in (disk, shown):
            assert not may_look(path)
    finally:
        shown.unlink()
    world.storage.restore(a_call(), instance, instance.volume_ids[0], copy_id)
    assert os.getxattr(disk, "system.posix_acl_access") == listed
    assert not may_look(disk)


def test_a_folder_s_default_access_list_opens_no_copy(world: LocalWorld) -> None:
    instance = world.add()
    disk = world.path(instance.volume_ids[0])
    disk.chmod(0o640)
    nobody = 0xFFFFFFFF
    entries = [(1, 7, nobody), (2, 7, NEIGHBOUR), (4, 0, nobody), (16, 7, nobody), (32, 0, nobody)]
    listed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(world.disks, "system.posix_acl_default", listed)
    copy_id = world.snapshot(instance)[0].id
    for path in (world.disks / ".stillframe").rglob("*"):
        assert not may_look(path), path
    world.storage.restore(a_call(), instance, instance.volume_ids[0], copy_id)
    assert stat.S_IMODE(disk.stat().st_mode) == 0o640
    assert not may_look(disk)


def test_a_pipe_in_the_place_of_a_disk_holds_nobody_up(world: LocalWorld) -> None:
    instance, copy_id = kept(world)
    disk = world.path(instance.volume_ids[0])
    give_away(world.disks)

    def swap() -> None:
        disk.unlink()
        os.mkfifo(disk)

    assert neighbour(swap)

    def look() -> None:
        world.storage.list_volumes(None)
        world.compute.list_instances(None)
        every_way(world, instance, copy_id)

    looking = [threading.Thread(target=look, daemon=True) for _ in range(16)]
    for thread in looking:
        thread.start()
    for thread in looking:
        thread.join(60)
    assert not any(thread.is_alive() for thread in looking)
