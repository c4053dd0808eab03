"""The storage driver for volumes on IBM Storage Virtualize arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from stillframe.domain.errors import Refused
from stillframe.domain.instance import Instance, Volume
from stillframe.domain.snapshot import CopyName, VolumeSnapshot
from stillframe.drivers.call import Call
from stillframe.drivers.storage import Cut, StorageCapabilities
from stillframe.drivers.storage_virtualize.checks import Checks
from stillframe.drivers.storage_virtualize.copies import Copies
from stillframe.drivers.storage_virtualize.cutting import Cutter
from stillframe.drivers.storage_virtualize.deleting import Deleter
from stillframe.drivers.storage_virtualize.options import Options
from stillframe.drivers.storage_virtualize.places import Arrays, Volumes
from stillframe.drivers.storage_virtualize.restoring import Restorer

# A restored volume reads as its copy from the start of the reverse mapping on, whatever happens to us.
_CAPABILITIES: Final = StorageCapabilities(atomic_restore=True, copy_progress=True)


class StorageVirtualize:
    """Volumes are vdisks; copies are vdisks too, each behind a FlashCopy mapping."""

    def __init__(self, options: Options, arrays: Arrays, volumes: Volumes) -> None:
        self._volumes = volumes
        self._copies = Copies(arrays)
        self._checks = Checks(arrays, volumes, self._copies)
        self._deleter = Deleter(options.poll_seconds)
        self._cutter = Cutter(options, self._checks, self._copies, self._deleter)
        self._restorer = Restorer(options, self._checks)

    @property
    def capabilities(self) -> StorageCapabilities:
        return _CAPABILITIES

    def list_volumes(self, project_id: str | None) -> Sequence[Volume]:
        """See `StorageDriver`."""
        return self._volumes.list_volumes(project_id)

    def get_volume(self, volume_id: str) -> Volume:
        """See `StorageDriver`."""
        return self._volumes.get_volume(volume_id)

    def check_cut(self, instance: Instance, volume_ids: Sequence[str]) -> None:
        """See `StorageDriver`."""
        for volume_id in volume_ids:
            if volume_id not in instance.volume_ids:
                raise Refused(f"instance '{instance.name}' has no volume {volume_id}")
            self._checks.source(volume_id)

    def prepare_cut(self, call: Call, instance: Instance, names: Sequence[CopyName]) -> None:  # noqa: ARG002
        """See `StorageDriver`: everything but the start of the consistency groups."""
        self._cutter.prepare(call, names)

    def cut(self, call: Call, instance: Instance, names: Sequence[CopyName]) -> Cut:  # noqa: ARG002
        """See `StorageDriver`."""
        return self._cutter.cut(call, names)

    def complete(self, call: Call, volume_snapshot_id: str) -> VolumeSnapshot:
        """See `StorageDriver`."""
        return self._cutter.complete(call, volume_snapshot_id)

    def find(self, snapshot_id: str | None) -> Sequence[VolumeSnapshot]:
        """See `StorageDriver`."""
        return sorted((copy.described() for copy in self._copies.all(snapshot_id)), key=lambda one: one.id)

    def check_restore(self, volume_id: str, volume_snapshot_id: str) -> None:
        """See `StorageDriver`."""
        self._checks.restore(volume_id, volume_snapshot_id)

    def restore(self, call: Call, volume_id: str, volume_snapshot_id: str) -> None:
        """See `StorageDriver`."""
        self._restorer.restore(call, volume_id, volume_snapshot_id)

    def delete(self, call: Call, volume_snapshot_id: str) -> None:
        """See `StorageDriver`."""
        copy = self._copies.find(volume_snapshot_id)
        if copy is not None:
            self._deleter.delete(call, copy)
