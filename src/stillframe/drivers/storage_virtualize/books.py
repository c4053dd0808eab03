"""Where copies are: on the arrays that an instance lies on, and on all of them where nobody knows which those are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from stillframe.domain.errors import NotFound, StillframeError, in_sentences
from stillframe.domain.snapshot import VolumeSnapshot
from stillframe.drivers.call import Call
from stillframe.drivers.storage import PartOnly
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.array_snapshots import ArraySnapshots, Member
from stillframe.drivers.storage_virtualize.arrays import Arrays, Place
from stillframe.drivers.storage_virtualize.checks import Found, Mapped, by_array
from stillframe.drivers.storage_virtualize.copies import Copies, Copy
from stillframe.drivers.storage_virtualize.objects import Vdisk
from stillframe.drivers.storage_virtualize.volumes import Volumes


@dataclass(frozen=True, slots=True)
class Wanted:
    """A volume that is to be put back: which copy it goes back to, and the vdisk that it has to be."""

    volume_id: str
    copy_id: str
    place: Place


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
            raise PartOnly(in_sentences(error.message for error in answers.missing.values()), found)
        return found

    def of_call(self, call: Call, copy_ids: Collection[str]) -> dict[str, Copy | Member]:
        """Those of these copies of the instance that an operation is about which there are."""
        return self._several(copy_ids, self._of_instance(call.instance_id))

    def to_restore(self, wanted: Collection[Wanted]) -> dict[Wanted, Found[Copy | Member] | StillframeError]:
        """What there is to put volumes back, or why nobody can tell.

        Four commands an array, where the copies lie on it with what their volumes are.
        """
        outcomes: dict[Wanted, Found[Copy | Member] | StillframeError] = {}
        located = self._arrays.locate({one.place for one in wanted})
        seen: dict[str, Mapped] = {}
        for array, vdisks in by_array(located.values()):
            on_it = [one for one in wanted if one.place in located and located[one.place][0] is array]
            here = {(one.volume_id, one.copy_id): one for one in on_it}
            seen[array.name] = Mapped.of(array, [vdisk.name for vdisk in vdisks])
            for pair, copy in self._copies.among(array, seen[array.name].sources, here).items():
                place = here[pair].place
                outcomes[here[pair]] = Found(copy, place, located[place][1], seen[array.name])
        others = [one for one in wanted if one not in outcomes]
        return outcomes | (self._otherwise(others, located, seen) if others else {})

    def _otherwise(
        self, wanted: Collection[Wanted], located: Mapping[Place, tuple[Array, Vdisk]], seen: Mapping[str, Mapped]
    ) -> dict[Wanted, Found[Copy | Member] | StillframeError]:
        """What there is of copies that have no mappings from their volumes' vdisks."""
        named = {one.place.array for one in wanted}
        arrays = None if None in named else self._arrays.named(frozenset(filter(None, named)))
        copies = self._several([one.copy_id for one in wanted], arrays)
        outcomes: dict[Wanted, Found[Copy | Member] | StillframeError] = {}
        for one in wanted:
            copy, place = copies.get(one.copy_id), one.place
            if copy is None or place.array not in (None, copy.array.name):
                outcomes[one] = NotFound(f"There is no copy {one.copy_id} on any array.")
                continue
            array, vdisk = located.get(place, (None, None))
            if array is None or array.name != copy.array.name:
                vdisk = copy.array.vdisk(place.vdisk)
            mapped = seen.get(copy.array.name) or Mapped.of(copy.array, [place.vdisk])
            outcomes[one] = Found(copy, place, vdisk, mapped)
        return outcomes

    def _several(self, copy_ids: Collection[str], arrays: Sequence[Array] | None) -> dict[str, Copy | Member]:
        def look(array: Array) -> dict[str, Copy | Member]:
            found: dict[str, Copy | Member] = {**self._snapshots.several_on(array, copy_ids)}
            return found | self._copies.several_on(array, [one for one in copy_ids if one not in found])

        answers = self._arrays.ask(look, arrays, None if arrays else self._arrays.list_seconds)
        found = {copy_id: copy for some in answers.given.values() for copy_id, copy in some.items()}
        if answers.missing and not found.keys() >= set(copy_ids):
            # Unknown is not gone.
            raise next(iter(answers.missing.values()))
        return found

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
