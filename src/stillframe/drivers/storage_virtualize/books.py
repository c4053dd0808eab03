"""Where copies are: on the arrays that an instance lies on, and on all of them where nobody knows which those are."""

from __future__ import annotations

from collections.abc import Sequence

from stillframe.domain.errors import NotFound, StillframeError
from stillframe.domain.snapshot import VolumeSnapshot
from stillframe.drivers.call import Call
from stillframe.drivers.storage import PartOnly
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.array_snapshots import ArraySnapshots, Member
from stillframe.drivers.storage_virtualize.arrays import Arrays
from stillframe.drivers.storage_virtualize.copies import Copies, Copy
from stillframe.drivers.storage_virtualize.places import Volumes


class Books:
    """The copies of both kinds, on all arrays."""

    def __init__(self, arrays: Arrays, volumes: Volumes, copies: Copies, snapshots: ArraySnapshots) -> None:
        self._arrays = arrays
        self._volumes = volumes
        self._copies = copies
        self._snapshots = snapshots

    def find(self, snapshot_id: str | None, instance_id: str | None) -> list[VolumeSnapshot]:
        """See `StorageDriver.find`."""

        def look(array: Array) -> list[VolumeSnapshot]:
            copies = [copy.described() for copy in self._copies.on(array, snapshot_id)]
            return copies + [self._snapshots.described(one) for one in self._snapshots.on(array, snapshot_id)]

        answers = self._arrays.ask(look, self._of_instance(instance_id))
        found = sorted((one for some in answers.given.values() for one in some), key=lambda one: one.id)
        if answers.missing and not self._lies_on(instance_id, frozenset(answers.given)):
            raise PartOnly("; ".join(error.message for error in answers.missing.values()), found)
        return found

    def of_call(self, call: Call, copy_id: str) -> Copy | Member | None:
        """A copy of the instance that an operation is about, or None."""
        return self._one(copy_id, self._of_instance(call.instance_id))

    def of_volume(self, volume_id: str, copy_id: str) -> Copy | Member:
        """A copy that lies where its volume does; raises `NotFound`."""
        found = self._one(copy_id, self._arrays.at(self._volumes.place(volume_id)))
        if found is None:
            raise NotFound(f"there is no copy {copy_id} on any array")
        return found

    def _one(self, copy_id: str, arrays: Sequence[Array] | None) -> Copy | Member | None:
        def look(array: Array) -> Copy | Member | None:
            member = self._snapshots.one_on(array, copy_id)
            return self._copies.one_on(array, copy_id) if member is None else member

        return self._arrays.first(look, arrays)

    def _of_instance(self, instance_id: str | None) -> Sequence[Array] | None:
        names = self._volumes.arrays_of(instance_id) if instance_id is not None else None
        return None if names is None else self._arrays.named(names)

    def _lies_on(self, instance_id: str | None, names: frozenset[str]) -> bool:
        """Whether all volumes of an instance are seen on these arrays, so that its copies are nowhere else."""
        volumes = self._volumes.of_instance(instance_id) if instance_id is not None else ()
        arrays = self._arrays.named(names)
        try:
            return bool(volumes) and all(self._is_on(volume_id, arrays) for volume_id in volumes)
        except StillframeError:
            return False

    def _is_on(self, volume_id: str, arrays: Sequence[Array]) -> bool:
        vdisk = self._volumes.place(volume_id).vdisk
        return self._arrays.first(lambda array: array.vdisk(vdisk), arrays) is not None
