"""What has to hold before a cut or a restore; every refusal says what is wrong and how to mend it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stillframe.domain.errors import BackendError, Damaged, OutOfSpace, Refused, Unavailable
from stillframe.domain.instance import PowerState
from stillframe.drivers.local import copies
from stillframe.drivers.local.border import border
from stillframe.drivers.local.copies import Copy, Method
from stillframe.drivers.local.declaration import Declaration, Disk
from stillframe.drivers.local.files import Files, allocated, is_regular
from stillframe.drivers.local.images import Format, Images, same_file
from stillframe.drivers.local.qemu import Qemu

# Books and folders need some room too, and a file system filled to its last block harms running guests.
HEADROOM: Final = 8 << 20


class Checks:
    """Looks, and changes nothing."""

    def __init__(self, files: Files, images: Images, qemu: Qemu) -> None:
        self._files = files
        self._images = images
        self._qemu = qemu

    def cut(self, declaration: Declaration, disks: Sequence[Disk], state: PowerState) -> None:
        """Raise `Refused`, `NotSupported` or `OutOfSpace` if these disks cannot be cut in this power state."""
        needs: defaultdict[Path, int] = defaultdict(int)
        running = state is not PowerState.SHUTOFF
        for disk in disks:
            self._present(declaration, disk)
            with border(f"looking at {disk.path}"):
                shape = self._images.shape(disk.file, disk.format)
                self._chain(disk)
                needs[disk.file.parent] += self._need(disk, shape.size, running=running)
                if running and not self._files.can_clone(disk.file.parent):
                    self._monitored(declaration, disk)
                if running and declaration.qmp_socket is not None:
                    self._in_use(declaration.qmp_socket, disk)
        self._room(needs)

    def restore(self, disk: Disk, declaration: Declaration, volume_id: str, folder: Path) -> Copy:
        """The copy, if the disk can be put back to it; raises `Refused`, `OutOfSpace`, `Damaged`."""
        self._present(declaration, disk)
        copy = copies.read(folder)
        if copy.name.volume_id != volume_id:
            raise Refused(f"the copy {copy.name.uuid} is of volume {copy.name.volume_id}, not of {volume_id}")
        if not copies.is_ready(folder):
            raise Refused(f"the copy {copy.name.uuid} is not complete")
        data = folder / copies.DATA
        with border(f"looking at {disk.path}"):
            self._unchanged(disk, copy, data)
            if not self._shares(copy, disk, data):
                left = folder.parent / f"{volume_id}.restoring"
                spare = allocated(left) if left.exists() else 0
                self._room({disk.file.parent: max(0, allocated(data) - spare)})
        return copy

    def _present(self, declaration: Declaration, disk: Disk) -> None:
        what = f"disk '{disk.name}' of instance '{declaration.name}'"
        try:
            regular = is_regular(disk.file)
            same_device = disk.file.stat().st_dev == disk.file.parent.stat().st_dev
        except OSError as problem:
            raise Refused(
                f"{what} is not there: {disk.path}: {problem.strerror}; put it back or correct the declaration"
            ) from None
        if not regular:
            raise Refused(f"{what} is not a regular file: {disk.path}; only image files can be copied")
        if not same_device:
            raise Refused(f"{what} is a mount of its own: {disk.path}; declare the file where it really lies")

    def _chain(self, disk: Disk) -> None:
        try:
            self._images.chain(disk.file, disk.format, disk.file.parent)
        except BackendError as problem:
            raise Refused(f"the backing chain of {disk.path} is broken; mend it first: {problem.message}") from None

    def _need(self, disk: Disk, size: int, *, running: bool) -> int:
        if self._files.can_clone(disk.file.parent):
            return 0
        # QEMU allocates the zeroes of a raw copy too until the copy is complete.
        return size if running and disk.format is Format.RAW else allocated(disk.file)

    def _monitored(self, declaration: Declaration, disk: Disk) -> None:
        if declaration.qmp_socket is None or self._qemu.status(declaration.qmp_socket) is None:
            raise Refused(
                f"{disk.path} lies on a file system without reflinks, so a running instance can only be copied through "
                "its QMP socket, and none answers; declare qmp_socket, shut the instance down, "
                "or move the disk to XFS or btrfs"
            )

    def _in_use(self, socket: Path, disk: Disk) -> None:
        if self._images.written_by_someone(disk.file):
            return
        try:
            nodes = self._qemu.nodes(socket)
        except Unavailable:
            nodes = []
        if not any(node.top and same_file(node.file, disk.file) for node in nodes):
            raise Refused(
                f"the running instance does not use {disk.path}; it has been moved, replaced or covered by an overlay: "
                "correct the declaration"
            )

    def _unchanged(self, disk: Disk, copy: Copy, data: Path) -> None:
        if str(disk.file) != copy.source:
            raise Refused(f"the disk has moved from {copy.source} to {disk.file} since the copy; move it back")
        if disk.format is not copy.format:
            raise Refused(f"{disk.path} is declared as {disk.format} but the copy is {copy.format}")
        if not data.is_file() or data.stat().st_size != copy.file_size:
            raise Damaged(f"{data} is not what was recorded: it is missing or has another length")
        now = self._images.shape(disk.file, disk.format).size
        if now != copy.size:
            raise Refused(
                f"{disk.path} has {now} bytes now and had {copy.size} when the copy was made; "
                f"resize it back first: qemu-img resize -f {disk.format} {disk.path} {copy.size}"
            )
        for below in copy.backing:
            changed = below.changed()
            if changed:
                raise Refused(f"the backing chain of {disk.path} has changed since the copy: {changed}; put it back")

    def _shares(self, copy: Copy, disk: Disk, data: Path) -> bool:
        return copy.method is Method.LINK or same_file(data, disk.file) or self._files.can_clone(disk.file.parent)

    def _room(self, needs: dict[Path, int]) -> None:
        devices: defaultdict[int, int] = defaultdict(int)
        for folder, need in needs.items():
            with border(f"looking at the room in {folder}"):
                device = folder.stat().st_dev
                devices[device] += need
                free = self._files.free(folder)
            if devices[device] + HEADROOM > free:
                raise OutOfSpace(
                    f"the file system of {folder} has {free} bytes free and the copies need "
                    f"{devices[device] + HEADROOM}; make room there"
                )
