"""The books of the copies: the names of vdisks and mappings on the arrays, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stillframe.domain.errors import NotFound
from stillframe.domain.snapshot import CopyName, VolumeSnapshot
from stillframe.drivers.storage_virtualize import naming
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.objects import Mapping
from stillframe.drivers.storage_virtualize.places import Arrays


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy as it is on its array; half-made ones have no mapping yet, and then their volume is not known."""

    array: Array
    vdisk: str
    size: int
    target: naming.Target
    mapping: Mapping | None

    @property
    def name(self) -> CopyName:
        return self.target.copy_name(self.mapping.name if self.mapping else None)

    @property
    def id(self) -> str:
        name = self.name
        return self.target.half_id if name.volume_id == naming.UNKNOWN_VOLUME else name.uuid

    @property
    def ready(self) -> bool:
        """A copy is in its group from the cut until it is completed."""
        return self.mapping is not None and not self.mapping.group and self.mapping.usable

    def described(self) -> VolumeSnapshot:
        return VolumeSnapshot(id=self.id, name=self.name, size=self.size, ready=self.ready)


class Copies:
    """All copies on all arrays."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays

    def all(self, snapshot_id: str | None) -> Iterator[Copy]:
        """The copies of an instance snapshot, or of all of them."""
        for array in self._arrays.all():
            for pattern in naming.patterns("sf", snapshot_id):
                for vdisk, size in array.vdisks(pattern):
                    target = naming.read_target(vdisk)
                    if target is not None:
                        yield Copy(array, vdisk, size, target, array.mapping_to(vdisk))

    def find(self, copy_id: str) -> Copy | None:
        """One copy by its id."""
        if not naming.is_id(copy_id):
            return None
        digest = naming.digest(copy_id)
        # The end of the names first. What is not found by it is looked for among all copies before it counts as gone.
        for pattern in (f"*-{digest}", *naming.patterns("sf", None)):
            for array in self._arrays.all():
                for vdisk, size in array.vdisks(pattern):
                    target = naming.read_target(vdisk)
                    if target is not None and target.digest == digest:
                        return Copy(array, vdisk, size, target, array.mapping_to(vdisk))
        return None

    def get(self, copy_id: str) -> Copy:
        """One copy by its id; raises `NotFound`."""
        found = self.find(copy_id)
        if found is None:
            raise NotFound(f"there is no copy {copy_id} on any array")
        return found
