"""The storage driver for image files on this machine."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from stillframe.domain.errors import Refused
from stillframe.domain.instance import Instance, Volume
from stillframe.domain.snapshot import CopyName, CopyReference, VolumeSnapshot
from stillframe.drivers.call import Call
from stillframe.drivers.local.checks import Checks, about
from stillframe.drivers.local.copies import Copies, require_mounted
from stillframe.drivers.local.cutting import Cutter
from stillframe.drivers.local.declaration import Declaration, Declarations, Disk
from stillframe.drivers.local.error_translation import translated
from stillframe.drivers.local.files import Files
from stillframe.drivers.local.images import Images
from stillframe.drivers.local.power import power_state
from stillframe.drivers.local.qemu import Qemu
from stillframe.drivers.local.replacing import Replacer
from stillframe.drivers.local.turns import PATIENCE
from stillframe.drivers.storage import Cut, PreparedCut, StorageCapabilities

LOG = logging.getLogger(__name__)

_CAPABILITIES: Final = StorageCapabilities(atomic_restore=True, copy_progress=True)


class LocalStorage:
    """Volumes are the disks of declared instances; copies lie beside them and share their blocks where possible.

    `patience`: how long a worker waits for another one that changes the same copy, in seconds.
    """

    def __init__(
        self,
        instances: Path,
        state: Path,
        files: Files,
        images: Images,
        qemu: Qemu,
        *,
        patience: float = PATIENCE,
    ) -> None:
        self._declarations = Declarations(instances)
        self._books = Copies(files, self._declarations, state, patience)
        self._files = files
        self._images = images
        self._qemu = qemu
        self._checks = Checks(files, images, qemu, self._books, self._declarations)
        self._replacer = Replacer(files)
        self._cutter = Cutter(files, images, qemu, self._books)

    @property
    def capabilities(self) -> StorageCapabilities:
        return _CAPABILITIES

    def list_volumes(self, project_id: str | None) -> Sequence[Volume]:
        """See `StorageDriver`."""
        found = [
            self._volume(declaration, disk)
            for declaration, disk in self._declarations.disks()
            if project_id in (None, declaration.project_id)
        ]
        return sorted(found, key=lambda volume: (volume.name, volume.id))

    def get_volume(self, volume_id: str) -> Volume:
        """See `StorageDriver`."""
        return self._volume(*self._declarations.volume(volume_id))

    def check_cut(self, instance: Instance, volume_ids: Sequence[str]) -> None:
        """See `StorageDriver`."""
        declaration = self._declarations.instance(instance.id)
        disks = [self._disk(declaration, volume_id) for volume_id in volume_ids]
        self._checks.cut(declaration, disks, power_state(declaration, self._images, self._qemu))

    def simultaneous(self, instance: Instance, volume_ids: Sequence[str]) -> bool:  # noqa: ARG002 -- of the port
        """See `StorageDriver`: what copies all disks at one instant is QEMU, whose guest can be paused as well."""
        return False

    def prepare_cut(self, call: Call, instance: Instance, names: Sequence[CopyName]) -> None:
        """See `StorageDriver`: a file has to be looked at and copied at the instant itself."""

    def cut(
        self,
        call: Call,
        instance: Instance,
        names: Sequence[CopyName],
        prepared: PreparedCut | None = None,  # noqa: ARG002 -- of the port
    ) -> Cut:
        """See `StorageDriver`."""
        declaration = self._declarations.instance(instance.id)
        return self._cutter.cut(call, declaration, names)

    def complete(self, call: Call, copy: CopyReference) -> VolumeSnapshot:
        """See `StorageDriver`."""
        return self._cutter.complete(call, copy.id)

    def find(
        self,
        snapshot_id: str | None,
        instance_id: str | None = None,  # noqa: ARG002 -- of the port
        project_id: str | None = None,  # noqa: ARG002 -- of the port
    ) -> Sequence[VolumeSnapshot]:
        """See `StorageDriver`."""
        with translated("looking for copies"):
            found = [copy.snapshot() for copy in self._books.records.all(snapshot_id)]
        return sorted(found, key=lambda one: one.id)

    def check_restore(self, instance: Instance, copies: Mapping[str, str]) -> Mapping[str, str]:
        """See `StorageDriver`."""
        declaration = self._declarations.instance(instance.id)
        disks = {
            volume_id: (self._declarations.volume(volume_id)[1], self._books.records.get(copy_id))
            for volume_id, copy_id in copies.items()
        }
        self._checks.restores(declaration, disks, power_state(declaration, self._images, self._qemu))
        return dict.fromkeys(copies, "replace")

    def restore(self, call: Call, volume_id: str, copy_id: str) -> None:
        """See `StorageDriver`: the copy's content becomes a new file that takes the disk's place at one instant."""
        declaration, disk = self._declarations.volume(volume_id)
        copy = self._books.records.get(copy_id)
        self._replacer.clear(copy)
        self._checks.restore(disk, declaration, volume_id, copy)
        with about(declaration, disk):
            self._replacer.replace(call, disk, copy)
        call.report(copy.size, copy.size)

    def release(self, call: Call, volume_id: str) -> None:
        """See `StorageDriver`: a restore that broke off has not touched the disk."""

    def delete(self, call: Call, copy: CopyReference) -> None:
        """See `StorageDriver`."""
        with translated(f"deleting the copy {copy.id}"):
            found = self._books.records.find(copy.id)
            if found is None:
                return
            require_mounted(found)
            self._replacer.clear(found)
            self._cutter.remove(call, found)

    def _disk(self, declaration: Declaration, volume_id: str) -> Disk:
        disk = declaration.disk(volume_id)
        if disk is None:
            raise Refused(f"instance '{declaration.name}' has no volume {volume_id}")
        return disk

    def _volume(self, declaration: Declaration, disk: Disk) -> Volume:
        try:
            size, status = self._images.shape(disk.file, disk.format).size, "in-use"
        except (OSError, Refused):
            # It is still declared, and the checks say what is wrong with it.
            size, status = 0, "error"
        return Volume(
            id=declaration.volume_id(disk),
            project_id=declaration.project_id,
            name=f"{declaration.name}-{disk.name}",
            size=size,
            status=status,
            bootable=disk.bootable or disk is declaration.attached[0],
            instance_id=declaration.id,
            device=disk.name,
        )
