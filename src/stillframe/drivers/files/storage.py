"""The storage driver for image files on this machine."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from stillframe.domain.errors import Refused
from stillframe.domain.instance import Instance, Volume
from stillframe.domain.snapshot import CopyName, CopyReference, VolumeSnapshot
from stillframe.drivers.block_jobs import BlockJobs
from stillframe.drivers.call import Call
from stillframe.drivers.compute import ComputeDriver
from stillframe.drivers.files.checks import Checks
from stillframe.drivers.files.copies import Copies, require_mounted
from stillframe.drivers.files.cutting import Cutter
from stillframe.drivers.files.disks import Disk, Disks, disk_of, require_attached_still
from stillframe.drivers.files.images import Images
from stillframe.drivers.files.replacing import Replacer
from stillframe.drivers.files.turns import TIMEOUT
from stillframe.drivers.image_files.error_translation import translated
from stillframe.drivers.image_files.files import Files
from stillframe.drivers.inventory import Inventory
from stillframe.drivers.storage import Cut, PreparedCut, StorageCapabilities, require_attached

LOG = logging.getLogger(__name__)

_CAPABILITIES: Final = StorageCapabilities(atomic_restore=True, copy_progress=True)


class FileStorage:
    """Volumes are the image files of instances; copies lie beside them and share their blocks where possible.

    `inventory`, `compute` and `jobs`: which disks there are, whether their instances run, and what their processes are
    asked for. `timeout`: how long a worker waits for another one that changes the same copy, in seconds.
    """

    def __init__(
        self,
        inventory: Inventory,
        compute: ComputeDriver,
        jobs: BlockJobs,
        state: Path,
        files: Files,
        images: Images,
        *,
        timeout: float = TIMEOUT,
    ) -> None:
        self._disks = Disks(inventory)
        self._compute = compute
        self._books = Copies(files, self._disks, state, timeout)
        self._files = files
        self._images = images
        self._checks = Checks(files, images, jobs, self._books, self._disks)
        self._replacer = Replacer(files)
        self._cutter = Cutter(files, images, jobs, self._books, self._disks, compute)

    @property
    def capabilities(self) -> StorageCapabilities:
        return _CAPABILITIES

    def list_volumes(self, project_id: str | None) -> Sequence[Volume]:
        """See `StorageDriver`."""
        found = [self._volume(disk) for disk in self._disks.all() if project_id in (None, disk.project_id)]
        return sorted(found, key=lambda volume: (volume.name, volume.id))

    def get_volume(self, volume_id: str) -> Volume:
        """See `StorageDriver`."""
        return self._volume(self._disks.volume(volume_id))

    def check_cut(self, instance: Instance, volume_ids: Sequence[str]) -> None:
        """See `StorageDriver`."""
        disks = [disk_of(instance, volume_id) for volume_id in volume_ids]
        self._checks.cut(disks, self._compute.get_instance(instance.id).power_state)

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
        return self._cutter.cut(call, instance, names)

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
        for volume_id in copies:
            require_attached(instance, volume_id)
        disks = {
            volume_id: (disk_of(instance, volume_id), self._books.records.get(copy_id))
            for volume_id, copy_id in copies.items()
        }
        self._checks.restores(disks, self._compute.get_instance(instance.id).power_state)
        return dict.fromkeys(copies, "replace")

    def restore(self, call: Call, instance: Instance, volume_id: str, copy_id: str) -> None:
        """See `StorageDriver`: the copy's content becomes a new file that takes the disk's place at one instant."""
        require_attached(instance, volume_id)
        disk, copy = disk_of(instance, volume_id), self._books.records.get(copy_id)
        require_attached_still(disk, self._disks.all())
        self._replacer.clear(copy)
        self._checks.restore(disk, copy)
        with disk.about():
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

    def _volume(self, disk: Disk) -> Volume:
        try:
            size, status = self._images.shape(disk.file, disk.format).size, "in-use"
        except (OSError, Refused):
            # It is still attached, and the checks say what is wrong with it.
            size, status = 0, "error"
        return Volume(
            id=disk.volume_id,
            project_id=disk.project_id,
            name=f"{disk.instance_name}-{disk.name}",
            size=size,
            status=status,
            bootable=disk.bootable,
            instance_id=disk.instance_id,
            device=disk.name,
        )
