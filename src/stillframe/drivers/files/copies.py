"""Where the copies lie: `.stillframe/` next to a disk, in it a folder for each copy, with `data`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from stillframe.domain.errors import BackendError, Damaged, Refused
from stillframe.drivers.files.disks import Disks
from stillframe.drivers.files.records import Copy, Method, Records
from stillframe.drivers.files.turns import TIMEOUT
from stillframe.drivers.image_files import opening
from stillframe.drivers.image_files.error_translation import translated
from stillframe.drivers.image_files.files import Files

LOG = logging.getLogger(__name__)

FOLDER: Final = ".stillframe"
_ANOTHER: Final = "Choose another instance snapshot, and delete this one."
_NOT_MOUNTED: Final = (
    "The file system that the disk and its copies lay on is not mounted; mount it, or an empty one if it is gone for "
    "good, and try again."
)


class Copies:
    """The folders of copies, what is in them by the records, and who else has a name for a disk."""

    def __init__(self, files: Files, disks: Disks, state: Path, timeout: float = TIMEOUT) -> None:
        self.records = Records(files, state, timeout)
        self._files = files
        self._disks = disks

    def root(self, disk: Path) -> Path:
        """The folder for the copies of a disk, made if it is new; raises `Unverified`."""
        root = disk.parent / FOLDER
        with translated("preparing the folder of the copies"):
            if not self._is_usable(disk.parent):
                self._files.make_folder_beside(root)
                self._files.sync(root.parent)
        return root

    def require_usable(self, folder: Path) -> None:
        """Raises `Refused` if copies could not be kept in a folder of disks: what lies in their place is not ours."""
        self._is_usable(folder)

    def roots(self) -> list[Path]:
        """Every folder that copies lie in, by the records, or may lie in, by what is attached; some may not exist."""
        recorded = {Path(copy.root) for copy in self.records.all()}
        return sorted(recorded | {disk.file.parent / FOLDER for disk in self._disks.all()})

    def require_replaceable(self, disk: opening.File) -> None:
        """Raises `Refused` if a disk is a mount, or has names (hard links) besides its own and our safety copies'."""
        if disk.mount != disk.folder.mount:
            raise Refused("It is a mount of its own; attach the file by the path where it really lies.")
        if disk.found.st_nlink == 1:
            return
        ours = sum(_is(copy.data, disk.found) for copy in self._links(disk.path))
        if disk.found.st_nlink > 1 + ours:
            LOG.warning("refused: %r has %d names, %d of them ours", str(disk.path), disk.found.st_nlink, 1 + ours)
            raise Refused(
                "The disk's file has another name, a hard link, which would keep the content that is to be replaced; "
                "remove it, or make it a file of its own (find -samefile shows it)."
            )

    def _is_usable(self, folder: Path) -> bool:
        """Whether the folder of the copies is there; raises `Refused` where another one lies in its place."""
        try:
            with opening.folder(folder / FOLDER, links=False) as root, opening.folder(folder) as disks:
                if root.mount != disks.mount:
                    raise Refused(
                        f"The folder of the copies ({FOLDER}, beside the disk) is a mount or a subvolume of its own, "
                        "out of which no disk can be put back; unmount it, or move the disk to where it lies."
                    )
        except FileNotFoundError:
            return False
        return True

    def _links(self, disk: Path) -> Iterator[Copy]:
        return (copy for copy in self.records.all() if copy.method is Method.LINK and copy.source == str(disk))


def trouble(copy: Copy, trusted: frozenset[int] | None = None) -> str | None:
    """Why the data of a complete copy cannot be used, in words for a tenant, or None; raises `Unverified`."""
    try:
        with opening.file(copy.data, os.O_RDONLY, trusted, links=False) as data:
            if data.found.st_size != copy.file_size:
                return f"The copy's data are damaged: they have another length than was recorded. {_ANOTHER}"
    except FileNotFoundError:
        if not _mounted(copy):
            return _NOT_MOUNTED
        return f"The copy's data are gone: somebody has removed them from the folder of the disk. {_ANOTHER}"
    except (OSError, Refused) as problem:
        if isinstance(problem, opening.Unverified):
            raise
        return f"The copy's data are damaged: they cannot be opened. {_ANOTHER}"
    return None


def trouble_below(copy: Copy) -> str | None:
    """Why the images below a complete copy cannot be what they were, as far as a glance tells; None if they may be."""
    for number, below in enumerate(copy.backing, 1):
        try:
            size = Path(below.path).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return f"The image below it, number {number} in its backing chain, is gone; put it back, or mount it."
        except OSError:
            # Who may not look knows nothing.
            continue
        if size != below.size:
            return (
                f"The image below it, number {number} in its backing chain, has been changed; put back the one of then."
            )
    return None


def require_mounted(copy: Copy) -> None:
    """Raises `BackendError` if the file system of a copy is not mounted: nothing is known of what it holds."""
    if not _mounted(copy):
        raise BackendError(_NOT_MOUNTED)


def require_sound(copy: Copy) -> None:
    """Raises `Damaged` that names the cause if the data of a complete copy cannot be used."""
    why = trouble(copy)
    if why is not None:
        raise Damaged(why)


def mount_of(folder: Path) -> str:
    """What the file system of a folder is mounted on."""
    while not os.path.ismount(folder):
        folder = folder.parent
    return str(folder)


def _mounted(copy: Copy) -> bool:
    return Path(copy.root).is_dir() or copy.mount == "/" or os.path.ismount(copy.mount)


def _is(path: Path, found: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.lstat(), found)
    except OSError:
        return False
