"""What has to hold before a cut or a restore; every refusal says what is wrong and how to mend it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from stillframe.domain.errors import Damaged, NotFound, Refused
from stillframe.domain.instance import Instance
from stillframe.domain.snapshot import CopyName
from stillframe.drivers.storage_virtualize import naming, objects
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.arrays import Arrays, Place
from stillframe.drivers.storage_virtualize.copies import Copy
from stillframe.drivers.storage_virtualize.objects import Vdisk
from stillframe.drivers.storage_virtualize.volumes import Volumes

C = TypeVar("C")

#: How long an array may take over a command while a guest is held still.
CUT_SECONDS: Final = 15.0

#: The vdisks that copies are made of, with their arrays.
Sources = Mapping[CopyName, tuple[Array, Vdisk]]

#: How many mappings may be connected with each other, by IBM's documentation.
_MAPPINGS: Final = 256
_END_REMOTE_COPY: Final = "stop and delete that relationship first."


@dataclass(frozen=True, slots=True)
class Mapped:
    """The mappings from and to some vdisks of an array."""

    sources: list[objects.Mapping]
    targets: dict[str, objects.Mapping]
    policies: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, array: Array, vdisks: Collection[str]) -> Mapped:
        """By two commands."""
        return cls(array.mappings("source_vdisk_name", vdisks), array.targets(vdisks))

    def of_source(self, vdisk: str) -> list[objects.Mapping]:
        """The mappings whose source a vdisk is."""
        return [one for one in self.sources if one.source == vdisk]


@dataclass(frozen=True, slots=True)
class Found(Generic[C]):
    """A copy, where its volume has to be, the vdisk there on the copy's array if any, and the mappings around that."""

    copy: C
    place: Place
    vdisk: Vdisk | None
    mapped: Mapped


class Checks:
    """Looks, and changes nothing."""

    def __init__(self, arrays: Arrays, volumes: Volumes) -> None:
        self._arrays = arrays
        self._volumes = volumes

    def sources(self, instance: Instance, volume_ids: Collection[str]) -> dict[str, tuple[Array, Vdisk]]:
        """The vdisks of volumes that can be cut, by three commands an array; raises `Refused`."""
        located = self.located(instance, volume_ids)
        for array, vdisks in by_array(located.values()):
            mapped = Mapped.of(array, [vdisk.name for vdisk in vdisks])
            for vdisk in vdisks:
                self._cuttable(array, vdisk, mapped)
        return located

    def located(self, instance: Instance, volume_ids: Collection[str]) -> dict[str, tuple[Array, Vdisk]]:
        """The vdisks of an instance's volumes, by one command an array; raises `Refused` for one that is on none."""
        places = {volume_id: self._volumes.place_of(instance, volume_id) for volume_id in volume_ids}
        try:
            found = self._arrays.locate(set(places.values()))
        except NotFound as missing:
            raise Refused(f"A volume is not on an array of the settings: {missing.message}") from None
        for volume_id, place in places.items():
            if place not in found:
                raise Refused(
                    f"No array has the vdisk '{place.vdisk}' of volume {volume_id}; "
                    "put it back or correct which vdisk is attached."
                )
        return {volume_id: found[place] for volume_id, place in places.items()}

    def _cuttable(self, array: Array, vdisk: Vdisk, mapped: Mapped) -> None:
        self._untouchable(array, vdisk, mapped)
        target_of = mapped.targets.get(vdisk.name)
        if target_of is not None and _writes(target_of):
            raise Refused(
                f"{_told(array, vdisk)} is the target of the FlashCopy mapping '{target_of.name}', which is "
                f"{target_of.status} at {target_of.progress} %; wait until that is through, or delete it."
            )
        if len(mapped.of_source(vdisk.name)) >= _MAPPINGS - 1:
            raise Refused(
                f"{_told(array, vdisk)} has as many FlashCopy mappings as an array allows; delete snapshots of it."
            )
        if not vdisk.online:
            raise Refused(f"{_told(array, vdisk)} is offline; see the array's event log.")

    def restore(self, volume_id: str, found: Found[Copy]) -> Vdisk:
        """The vdisk that can be put back to the copy; raises as `StorageDriver.check_restore`."""
        copy, vdisk, copy_id = found.copy, found.vdisk, found.copy.id
        if copy.name.volume_id != volume_id:
            raise Refused(
                f"The copy {copy_id} is of volume {copy.name.volume_id}, not of {volume_id}; choose one of that."
            )
        if vdisk is None:
            raise Refused(
                f"Array '{copy.array.name}' has the copy {copy_id}, but not the vdisk '{found.place.vdisk}'; "
                "put it back or correct which vdisk is attached."
            )
        mapping = copy.mapping
        if mapping is not None and mapping.status in ("stopped", "stopping"):
            raise Damaged(
                f"The copy {copy_id} is lost: its mapping '{mapping.name}' was stopped on the array; "
                "choose another instance snapshot, and delete this one."
            )
        if mapping is None or not copy.ready:
            raise Refused(f"The copy {copy_id} is not complete; choose another instance snapshot.")
        if mapping.source != vdisk.name:
            raise Refused(
                f"The copy {copy_id} is of the vdisk '{mapping.source}', and the volume is '{vdisk.name}' now; "
                "correct which vdisk is attached."
            )
        if copy.size != vdisk.size:
            raise Refused(
                f"{_told(copy.array, vdisk)} has {vdisk.size} bytes now and had {copy.size} when the copy was made; "
                "resize it back first."
            )
        self.restorable(copy.array, vdisk, found.mapped)
        return vdisk

    def restorable(self, array: Array, vdisk: Vdisk, mapped: Mapped) -> None:
        """Raise `Refused` for a vdisk that may not be overwritten at present, whatever by."""
        self._untouchable(array, vdisk, mapped)
        present = mapped.targets.get(vdisk.name)
        if present is None:
            if not vdisk.online:
                raise Refused(f"{_told(array, vdisk)} is offline; see the array's event log.")
            return
        if present.rc_controlled:
            raise Refused(
                f"{_told(array, vdisk)} is the target of '{present.name}', which remote copy controls; "
                f"{_END_REMOTE_COPY}"
            )
        if present.name.startswith(naming.REVERSE) or present.whole:
            # Ours, or done with: the restore clears it away.
            return
        raise Refused(
            f"{_told(array, vdisk)} is the target of the FlashCopy mapping '{present.name}' ({present.progress} %); "
            "wait until that is through, or delete it."
        )

    def _untouchable(self, array: Array, vdisk: Vdisk, mapped: Mapped) -> None:
        if vdisk.remote_copy:
            raise Refused(
                f"{_told(array, vdisk)} is in the remote copy relationship '{vdisk.remote_copy}'; "
                "stop and delete that first."
            )
        policies = [f"it is a {vdisk.replication} copy"] if vdisk.replication else []
        if vdisk.volume_group and not policies:
            if vdisk.volume_group not in mapped.policies:
                mapped.policies[vdisk.volume_group] = array.replication_policies(vdisk.volume_group)
            policies = [f"policy '{name}'" for name in mapped.policies[vdisk.volume_group]]
        if policies:
            where = f" with its volume group '{vdisk.volume_group}'" if vdisk.volume_group else ""
            raise Refused(
                f"{_told(array, vdisk)} is replicated{where} ({policies[0]}), and must not be overwritten; "
                "take the replication policy away first."
            )
        controlled = [one for one in mapped.of_source(vdisk.name) if one.rc_controlled]
        if controlled:
            raise Refused(
                f"{_told(array, vdisk)} has the FlashCopy mapping '{controlled[0].name}', which remote copy controls; "
                f"{_END_REMOTE_COPY}"
            )


def _writes(mapping: objects.Mapping) -> bool:
    return mapping.rc_controlled or mapping.status == "stopped" or (mapping.active and not mapping.whole)


def _told(array: Array, vdisk: Vdisk) -> str:
    return f"The vdisk '{vdisk.name}' of array '{array.name}'"


def by_array(located: Iterable[tuple[Array, Vdisk]]) -> list[tuple[Array, list[Vdisk]]]:
    """The vdisks of each array, by the arrays' names."""
    arrays: dict[str, Array] = {}
    vdisks: defaultdict[str, list[Vdisk]] = defaultdict(list)
    for array, vdisk in located:
        arrays[array.name] = array
        vdisks[array.name].append(vdisk)
    return [(arrays[name], vdisks[name]) for name in sorted(arrays)]
