"""The books of the copies: the names of vdisks and mappings on the arrays, and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from stillframe.domain.snapshot import CopyName, VolumeSnapshot
from stillframe.drivers.storage_virtualize import naming
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.objects import Mapping, Vdisk
from stillframe.drivers.storage_virtualize.volumes import Volumes


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
        return self._read(array, [one for kind in naming.patterns("sf", snapshot_id) for one in array.matching(kind)])

    def named(self, array: Array, names: Collection[CopyName]) -> dict[CopyName, Copy]:
        """Those of these copies that there are, by two commands."""
        vdisks = {naming.target(name): name for name in names}
        return {vdisks[one.vdisk]: one for one in self._read(array, array.vdisks(vdisks.keys()).values())}

    def several_on(self, array: Array, copy_ids: Collection[str]) -> dict[str, Copy]:
        """Those of these copies that there are; the ones of one cut by three commands in all."""
        found: dict[str, Copy] = {}
        left = sorted(copy_id for copy_id in copy_ids if naming.is_id(copy_id))
        while left:
            cut = self._cut_of(array, left[0])
            # What is not found by the end of its name is looked for among all copies before it counts as gone.
            copies = {one.target.digest: one for one in (self.on(array, None) if cut is None else cut)}
            digests = {copy_id: naming.digest(copy_id) for copy_id in left}
            found |= {copy_id: copies[digest] for copy_id, digest in digests.items() if digest in copies}
            left = [] if cut is None else [copy_id for copy_id in left if copy_id not in found]
        return found

    def among(
        self, array: Array, mappings: Collection[Mapping], pairs: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], Copy]:
        """The copies of volumes, pairs of volume id and copy id, whose mappings are among these; by one command."""
        wanted = {naming.end_of_forward(*pair): pair for pair in pairs if all(map(naming.is_id, pair))}
        held = {one.target: one for one in mappings if naming.end_of(one.name) in wanted}
        copies = self._read(array, array.vdisks(held.keys()).values(), held)
        return {wanted[naming.end_of(held[one.vdisk].name)]: one for one in copies}

    def _cut_of(self, array: Array, copy_id: str) -> list[Copy] | None:
        """The copies that were cut together with one, or None where that is not found by the end of its name."""
        for vdisk in array.matching(f"*-{naming.digest(copy_id)}"):
            if naming.read_target(vdisk.name) is not None:
                return self._read(array, array.matching(naming.beside(vdisk.name)))
        return None

    def _read(self, array: Array, vdisks: Iterable[Vdisk], mappings: dict[str, Mapping] | None = None) -> list[Copy]:
        read = [(one, target) for one in vdisks if (target := naming.read_target(one.name)) is not None]
        held = array.targets([one.name for one, _ in read]) if mappings is None else mappings
        copies = []
        for one, target in read:
            mapping = held.get(one.name)
            copies.append(Copy(array, one.name, one.size, target, mapping, self._volume_of(target, mapping)))
        return copies

    def _volume_of(self, target: naming.Target, mapping: Mapping | None) -> str:
        told = naming.volume_of(mapping.name) if mapping is not None else None
        if told is not None:
            return told
        return next((one for one in self._volumes.ids() if target.is_of(one)), naming.UNKNOWN_VOLUME)
