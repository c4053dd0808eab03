"""Who depends on a disk's file: attached images that have it below them, and overlays that nobody attached."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from stillframe.domain.errors import Refused
from stillframe.drivers.files.disks import Disk, Disks
from stillframe.drivers.files.images import Images
from stillframe.drivers.files.records import Records
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.image_files.opening import File

LOG = logging.getLogger(__name__)


class Dependents:
    """All disks as they are attached at present, looked at once for all the disks of a request.

    What is found is named in the log, for a tenant must not learn of other tenants'.
    """

    def __init__(self, disks: Disks, images: Images, records: Records) -> None:
        self._attached = disks.all()
        self._records = records
        self._images = images

    def require_one_owner(self, disk: Disk, file: File) -> None:
        """Raise `Refused` if the same file is attached as another disk, too, by whichever name."""
        for taken in self._attached:
            if taken.volume_id != disk.volume_id and _is(taken.path, file):
                self._tell(
                    file.path, f"it is disk '{taken.name}' of instance '{taken.instance_name}', too: {taken.path}"
                )
                raise Refused(
                    "The same file is attached as another disk, too, by this name or another one; the service's log "
                    "names it. Detach one of the two."
                )

    def require_none(self, disk: Disk, file: File) -> None:
        """Raise `Refused` if something would change, or be left behind, once another file has the disk's place."""
        for taken in self._attached:
            if taken.volume_id == disk.volume_id or taken.stated != Format.QCOW2:
                continue
            if self._leads_to(taken.path, file):
                self._tell(file.path, f"disk '{taken.name}' of instance '{taken.instance_name}' has it below it")
                raise Refused(
                    "Another attached image has this disk below it, as its backing file, and would change with it; the "
                    "service's log names it. Copy what it needs into it first: qemu-img rebase -b ''"
                )
        self._require_no_copy(file)
        attached = {taken.path for taken in self._attached}
        for path in _images_beside(file):
            if path not in attached and self._leads_to(path, file) and not self._is_raw(path):
                self._tell(file.path, f"{path} has it below it")
                raise Refused(
                    "An image in the same folder, attached nowhere, has this disk below it, as its backing file; the "
                    "service's log names it. If the instance uses that overlay, merge it into the disk: qemu-img "
                    "commit; else copy what it needs into it: qemu-img rebase -b '', or delete it."
                )

    def _require_no_copy(self, file: File) -> None:
        """What a disk's copy has below it may be below the disk itself no more, and is needed all the same.

        A file that was written to since is of no use to the copy any more; no time is taken to read it.
        """
        state = str(file.path), file.found.st_size, file.found.st_mtime_ns
        for copy in self._records.all():
            for below in copy.backing:
                if (below.path, below.size, below.mtime_ns) == state:
                    self._tell(file.path, f"the copy {copy.id} of {copy.source} has it below it")
                    raise Refused(
                        "A snapshot of another disk has this disk below it, as its backing file, and could not be "
                        "restored any more; the service's log names it. Delete that snapshot first."
                    )

    def _leads_to(self, path: Path, file: File) -> bool:
        return any(_is(below, file) for below in self._images.all_below(path))

    def _is_raw(self, path: Path) -> bool:
        """Whether the file is attached as raw: what looks like a header there is its guest's."""
        there = _inode(path)
        return any(_inode(disk.path) == there for disk in self._attached if disk.stated == Format.RAW)

    @staticmethod
    def _tell(path: Path, what: str) -> None:
        LOG.warning("refused: %r: %r", str(path), what)


def _is(path: Path, file: File) -> bool:
    return _inode(path) == (file.found.st_dev, file.found.st_ino)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _images_beside(file: File) -> Iterator[Path]:
    with os.scandir(f"/proc/self/fd/{file.folder.fd}") as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False) and entry.name != file.name:
                yield file.folder.path / entry.name
