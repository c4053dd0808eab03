"""The books of the copies: the names of vdisks and mappings on the arrays, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stillframe.domain.snapshot import CopyName, VolumeSnapshot
from stillframe.drivers.storage_virtualize import naming
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.objects import Mapping
from stillframe.drivers.storage_virtualize.places import Volumes


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy as it is on its array; one that is half made or half deleted has no mapping."""

    array: Array
    vdisk: str
    size: int
    target: naming.Target
    mapping: Mapping | None
    volume_id: str

    @property
    def name(self) -> CopyName:
        return self.target.copy_name(self.volume_id)

    @property
    def id(self) -> str:
        return self.target.half_id if self.volume_id == naming.UNKNOWN_VOLUME else self.name.uuid

    @property
    def ready(self) -> bool:
        """A copy is in its group from the cut until it is completed."""
        return self.mapping is not None and not self.mapping.group and self.mapping.usable

    def described(self) -> VolumeSnapshot:
        return VolumeSnapshot(id=self.id, name=self.name, size=self.size, ready=self.ready)


class Copies:
    """The copies on an array, by the names that they have there."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    def on(self, array: Array, snapshot_id: str | None) -> list[Copy]:
        """The copies of an instance snapshot, or of all of them."""
        return [copy for pattern in naming.patterns("sf", snapshot_id) for copy in self._matching(array, pattern)]

    def one_on(self, array: Array, copy_id: str) -> Copy | None:
        """One copy by its id."""
        if not naming.is_id(copy_id):
            return None
        digest = naming.digest(copy_id)
        # The end of the names first. What is not found by it is looked for among all copies before it counts as gone.
        for pattern in (f"*-{digest}", *naming.patterns("sf", None)):
            found = next(self._matching(array, pattern, digest), None)
            if found is not None:
                return found
        return None

    def _matching(self, array: Array, pattern: str, digest: str | None = None) -> Iterator[Copy]:
        for vdisk, size in array.vdisks(pattern):
            target = naming.read_target(vdisk)
            if target is not None and digest in (None, target.digest):
                mapping = array.mapping_to(vdisk)
                yield Copy(array, vdisk, size, target, mapping, self._volume_of(target, mapping))

    def _volume_of(self, target: naming.Target, mapping: Mapping | None) -> str:
        told = naming.volume_of(mapping.name) if mapping is not None else None
        if told is not None:
            return told
        return next((one for one in self._volumes.ids() if target.is_of(one)), naming.UNKNOWN_VOLUME)
