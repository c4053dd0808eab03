"""What has to hold before a cut or a restore; every refusal says what is wrong and how to mend it, without a path."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from stillframe.domain.errors import NotSupported, OutOfSpace, Refused
from stillframe.domain.instance import PowerState
from stillframe.drivers.block_jobs import BlockJobs
from stillframe.drivers.files.copies import Copies, require_sound
from stillframe.drivers.files.dependents import Dependents
from stillframe.drivers.files.disks import Disk, Disks
from stillframe.drivers.files.images import Images
from stillframe.drivers.files.records import Copy, Method, Stage
from stillframe.drivers.image_files.alone import require_no_writer, require_open_in_qemu
from stillframe.drivers.image_files.files import Files, allocated
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.image_files.looking import same_file
from stillframe.drivers.image_files.opening import File

LOG = logging.getLogger(__name__)

# Books and folders need some room too, and a file system filled to its last block harms running guests.
HEADROOM: Final = 8 << 20
_SECTOR: Final = 512  # bytes; QEMU's unit of an image's size
# Drivers of nodes that only stand before others and change nothing of what is read.
_FILTERS: Final = frozenset({"throttle", "copy-on-read", "preallocate"})
_PLAIN_FILE: Final = "file"


class Checks:
    """Looks, and changes nothing."""

    def __init__(self, files: Files, images: Images, jobs: BlockJobs, books: Copies, disks: Disks) -> None:
        self._files = files
        self._images = images
        self._jobs = jobs
        self._words = jobs.words
        self._books = books
        self._disks = disks

    def cut(self, disks: Sequence[Disk], state: PowerState) -> None:
        """Raise `Refused`, `NotSupported` or `OutOfSpace` if these disks cannot be cut in this power state."""
        needs: defaultdict[Path, int] = defaultdict(int)
        running = state is not PowerState.SHUTOFF
        dependents = Dependents(self._disks, self._images, self._books.records)
        for disk in disks:
            with disk.about(), self._sound(disk, dependents) as file:
                self._images.require_checkable(file, disk.format)
                if running:
                    self._in_use(disk, file)
                else:
                    require_no_writer(file)
                if running and not self._files.can_clone(file.folder.path):
                    self._copied_while_running(disk, file)
                needs[file.folder.path] += self._need(disk, file, running=running)
        self._room(needs)

    def restores(self, disks: Mapping[str, tuple[Disk, Copy]], state: PowerState) -> None:
        """See that all disks can be put back together; from volume id to disk and copy.

        Raises `Refused`, `NotSupported`, `OutOfSpace`, `Damaged`.
        """
        if state is not PowerState.SHUTOFF:
            for instance, monitor in dict.fromkeys((disk.instance_name, disk.monitor) for disk, _ in disks.values()):
                if monitor is not None:
                    self._require_no_job(instance, monitor)
        needs: defaultdict[Path, int] = defaultdict(int)
        dependents = Dependents(self._disks, self._images, self._books.records)
        for volume_id, (disk, copy) in disks.items():
            with disk.about():
                self._whole(copy, volume_id)
            with disk.about(), self._sound(disk, dependents) as file:
                if state is PowerState.SHUTOFF:
                    require_no_writer(file)
                else:
                    self._in_use(disk, file)
                self._unchanged(disk, file, copy)
                dependents.require_none(disk, file)
                if not self._shares(copy, disk):
                    needs[file.folder.path] += allocated(copy.data)
        self._room(needs)

    def restore(self, disk: Disk, copy: Copy) -> None:
        """As `restores`, for one disk of an instance that is off."""
        self.restores({disk.volume_id: (disk, copy)}, PowerState.SHUTOFF)

    @contextmanager
    def _sound(self, disk: Disk, dependents: Dependents) -> Iterator[File]:
        """The disk's file, open; it is one of its own, and what is below it can be relied on."""
        with self._images.opened(disk.path) as file:
            dependents.require_one_owner(disk, file)
            self._books.require_replaceable(file)
            self._books.require_usable(file.folder.path)
            self._images.shape(file, disk.format)
            with self._images.layers(file, disk.format, disk.file.parent):
                yield file

    def _copied_while_running(self, disk: Disk, file: File) -> None:
        if disk.monitor is None or not self._jobs.listens(disk.monitor):
            raise Refused(
                "It lies on a file system without reflinks, so a running instance can only be copied by the process "
                f"that runs it, and {self._words.silent}; {self._words.answer}, shut the instance down, or move the "
                "disk to XFS or btrfs."
            )
        busy = self._jobs.foreign_jobs(disk.monitor)
        if busy:
            raise Refused(
                f"Its instance is busy with a block job of somebody else ({', '.join(busy)}), and a copy would meet "
                "with it; wait for its end, or cancel it."
            )
        if disk.format is Format.QCOW2:
            self._images.require_rebuildable(file)

    def _require_no_job(self, instance: str, monitor: str) -> None:
        """Nothing goes on that the end of the process would break off; that it can be ended, its platform knows."""
        what = f"Instance '{instance}'"
        if not self._jobs.listens(monitor):
            raise Refused(
                f"{what} runs, and {self._words.silent}, so that nobody knows what else goes on there; shut it down "
                f"first, or {self._words.answer}."
            )
        busy = self._jobs.foreign_jobs(monitor)
        if busy:
            raise Refused(
                f"{what} is busy with a block job of somebody else ({', '.join(busy)}), which a restore would break "
                "off; wait for its end, or cancel it."
            )

    def _in_use(self, disk: Disk, file: File) -> None:
        """The disk's own file is what a device of the running process stands on, read as it is attached."""
        if disk.monitor is None or not self._jobs.listens(disk.monitor):
            return
        tops = [node for node in self._jobs.nodes(disk.monitor) if node.top and same_file(node.file, disk.file)]
        if not tops:
            raise Refused(
                "The running instance does not use it; it has been moved, replaced or covered by an overlay: "
                f"{self._words.merge}, or correct which file is attached."
            )
        plain = {disk.format.value, *_FILTERS} | ({_PLAIN_FILE} if disk.format is Format.RAW else set())
        strange = sorted({node.driver for node in tops} - plain)
        if strange:
            raise NotSupported(
                f"The running instance reads it by QEMU's driver '{strange[0]}', and it is attached as {disk.format}; "
                "a copy would not be what the guest has. Correct the format that it is attached with, or how the "
                "instance is started."
            )
        require_open_in_qemu(file)

    def _need(self, disk: Disk, file: File, *, running: bool) -> int:
        if self._files.can_clone(file.folder.path):
            return 0
        # QEMU allocates the zeroes of a raw copy too until the copy is complete.
        return file.found.st_size if running and disk.format is Format.RAW else file.found.st_blocks * 512

    def _whole(self, copy: Copy, volume_id: str) -> None:
        if copy.name.volume_id != volume_id:
            raise Refused(
                f"The copy {copy.id} is of volume {copy.name.volume_id}, not of {volume_id}; choose one of that."
            )
        if copy.stage is not Stage.READY:
            raise Refused(f"The copy {copy.id} is not complete; choose another instance snapshot.")
        # Before the disk: of all that can be wrong, a file system that is not mounted explains the most.
        require_sound(copy)

    def _unchanged(self, disk: Disk, file: File, copy: Copy) -> None:
        if str(file.path) != copy.source:
            raise Refused("It has moved since the copy was made; move it back.")
        if disk.format is not copy.format:
            raise Refused(f"It is attached as {disk.format}, but the copy is {copy.format}; correct that.")
        now = self._images.shape(file, disk.format).size
        # A guest that writes to the last sector of a raw disk makes the whole sector a part of the file.
        if _sectors(now) != _sectors(copy.size):
            raise Refused(
                f"It has {now} bytes now and had {copy.size} when the copy was made; resize it back first: "
                f"qemu-img resize{' --shrink' if now > copy.size else ''} -f {disk.format} <its file> {copy.size}"
            )
        self._images.require_same_chain(copy.data, copy.format, disk.file.parent, copy.backing)

    def _shares(self, copy: Copy, disk: Disk) -> bool:
        return copy.method is Method.LINK or same_file(copy.data, disk.file) or self._files.can_clone(disk.file.parent)

    def _room(self, needs: Mapping[Path, int]) -> None:
        devices: defaultdict[int, int] = defaultdict(int)
        for folder, need in needs.items():
            device = folder.stat().st_dev
            devices[device] += need
            free = self._files.free(folder)
            if devices[device] + HEADROOM > free:
                LOG.warning("refused: the file system of %r has %d bytes free", str(folder), free)
                raise OutOfSpace(
                    f"The disks' file system has {free} bytes free, and the copies need {devices[device] + HEADROOM}; "
                    "make room there."
                )


def _sectors(size: int) -> int:
    return -(-size // _SECTOR)
