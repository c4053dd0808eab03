"""Opening by descriptor: which folders are believed, what is opened, and what a FIFO can hold up."""

from __future__ import annotations

import os
import shlex
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from stillframe.domain.errors import Refused
from stillframe.drivers.image_files import opening

NEIGHBOUR = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    folder = tmp_path / "disks"
    folder.mkdir(mode=0o755)
    path = folder / "disk"
    path.write_bytes(b"bytes")
    return path


def opened(path: Path, flags: int = os.O_RDONLY) -> bytes:
    with opening.file(path, flags) as file:
        return os.pread(file.fd, 100, 0)


def access_list(user: int, permissions: int) -> bytes:
    """An ACL (linux/posix_acl_xattr.h) that lets one more user in, and the owning group not."""
    nobody = 0xFFFFFFFF
    entries = [(1, 7, nobody), (2, permissions, user), (4, 0, nobody), (16, 7, nobody), (32, 0, nobody)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


class TestFolders:
    def test_a_folder_of_root_or_the_service_is_believed(self, disk: Path) -> None:
        assert opened(disk) == b"bytes"
        with opening.file(disk) as file:
            assert file.path == disk.resolve()

    @needs_root
    def test_a_neighbour_s_folder_is_refused_and_the_advice_mends_it(self, disk: Path) -> None:
        os.chown(disk.parent, NEIGHBOUR, NEIGHBOUR)
        self.refused_until_mended(disk, f"uid {NEIGHBOUR}")

    @needs_root
    def test_a_neighbour_s_folder_further_up_is_refused(self, disk: Path) -> None:
        below = disk.parent / "below"
        below.mkdir()
        disk = disk.rename(below / "disk")
        os.chown(below.parent, NEIGHBOUR, NEIGHBOUR)
        self.refused_until_mended(disk, f"uid {NEIGHBOUR}")

    @pytest.mark.parametrize("mode", [0o775, 0o757, 0o1775], ids=oct)
    def test_a_folder_that_others_may_write_to_is_refused(self, disk: Path, mode: int) -> None:
        disk.parent.chmod(mode)
        with pytest.raises(opening.Unverified, match="can be written to") as refusal:
            opened(disk)
        assert str(disk.parent) not in refusal.value.message
        assert refusal.value.folder == disk.parent.resolve()

    def test_an_access_list_that_lets_others_write_is_refused(self, disk: Path) -> None:
        os.setxattr(disk.parent, "system.posix_acl_access", access_list(user=NEIGHBOUR, permissions=7))
        with pytest.raises(opening.Unverified, match="ACL"):
            opened(disk)

    def test_a_sticky_folder_is_fine_as_a_parent_and_not_for_disks(self, disk: Path) -> None:
        disk.parent.parent.chmod(0o1777)
        assert opened(disk) == b"bytes"
        disk.parent.chmod(0o1777)
        with pytest.raises(opening.Unverified, match="everybody"):
            opened(disk)

    @needs_root
    def test_the_owner_of_the_state_folder_is_believed_by_an_administrator(self, disk: Path, tmp_path: Path) -> None:
        state = tmp_path / "state"
        state.mkdir()
        for folder in (state, disk.parent):
            os.chown(folder, NEIGHBOUR, NEIGHBOUR)
        with opening.file(disk, trusted=opening.trusted_users(state)) as file:
            assert os.pread(file.fd, 5, 0) == b"bytes"

    @staticmethod
    def refused_until_mended(disk: Path, why: str) -> None:
        with pytest.raises(opening.Unverified, match=why) as refusal:
            opened(disk)
        subprocess.run(shlex.split(refusal.value.mend), check=True)
        assert opened(disk) == b"bytes"


class TestLinks:
    def test_links_are_followed_through_verified_folders(self, disk: Path, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("disks/../disks")
        (disk.parent / "other").symlink_to(disk)
        with opening.file(tmp_path / "link" / "other") as file:
            assert file.path == disk.resolve()

    @needs_root
    def test_a_link_in_a_neighbour_s_folder_is_refused(self, disk: Path, tmp_path: Path) -> None:
        theirs = tmp_path / "theirs"
        theirs.mkdir()
        (theirs / "disk").symlink_to(disk)
        os.chown(theirs, NEIGHBOUR, NEIGHBOUR)
        with pytest.raises(opening.Unverified):
            opened(theirs / "disk")

    @needs_root
    def test_a_neighbour_s_link_in_a_sticky_folder_is_refused(self, disk: Path, tmp_path: Path) -> None:
        tmp_path.chmod(0o1777)
        (tmp_path / "link").symlink_to(disk.parent)
        os.chown(tmp_path / "link", NEIGHBOUR, NEIGHBOUR, follow_symlinks=False)
        with pytest.raises(opening.Unverified, match="link"):
            opened(tmp_path / "link" / "disk")

    def test_a_circle_of_links_is_an_error_of_the_system(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        with pytest.raises(OSError, match="symbolic links"):
            opened(tmp_path / "a")

    def test_an_entry_is_never_behind_a_link(self, disk: Path) -> None:
        (disk.parent / "link").symlink_to(disk)
        with opening.folder(disk.parent) as folder:
            with opening.entry(folder, "disk") as file:
                assert os.pread(file.fd, 5, 0) == b"bytes"
            with pytest.raises(Refused, match="link"), opening.entry(folder, "link"):
                pass


class TestKinds:
    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.mknod(path, 0o140600)])
    @pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
    def test_what_is_no_regular_file_is_refused_and_blocks_nobody(
        self, tmp_path: Path, make: Callable[[Path], None], flags: int
    ) -> None:
        make(tmp_path / "odd")
        said: list[str] = []

        def look() -> None:
            with pytest.raises(Refused) as refusal:
                opened(tmp_path / "odd", flags)
            said.append(refusal.value.message)

        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        looking.join(60)
        assert ["regular" in one for one in said] == [True]

    def test_a_file_that_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="nowhere"):
            opened(tmp_path / "nowhere" / "disk")

    def test_a_program_that_inherits_the_descriptor_opens_the_same_file(self, disk: Path) -> None:
        with opening.file(disk) as file:
            disk.rename(disk.with_name("moved"))
            disk.write_bytes(b"other")
            done = subprocess.run(
                ["cat", f"/proc/self/fd/{file.fd}"], pass_fds=[file.fd], check=True, capture_output=True, timeout=60
            )
        assert done.stdout == b"bytes"
