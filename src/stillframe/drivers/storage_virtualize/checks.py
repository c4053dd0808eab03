"""What has to hold before a cut or a restore; every refusal says what is wrong and how to mend it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from stillframe.domain.errors import Damaged, NotFound, Refused
from stillframe.domain.snapshot import CopyName
from stillframe.drivers.storage_virtualize import naming, objects
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.arrays import Arrays
from stillframe.drivers.storage_virtualize.copies import Copy
from stillframe.drivers.storage_virtualize.objects import Vdisk
from stillframe.drivers.storage_virtualize.places import Volumes

#: How long an array may take over a command while a guest is held still.
CUT_SECONDS: Final = 15.0

#: The vdisks that copies are made of, with their arrays.
Sources = Mapping[CopyName, tuple[Array, Vdisk]]

#: How many mappings may be connected with each other, by IBM's documentation.
_MAPPINGS: Final = 256


class Checks:
    """Looks, and changes nothing."""

    def __init__(self, arrays: Arrays, volumes: Volumes) -> None:
        self._arrays = arrays
        self._volumes = volumes

    def source(self, volume_id: str) -> tuple[Array, Vdisk]:
        """The vdisk of a volume that can be cut; raises `Refused`."""
        try:
            place = self._volumes.place(volume_id)
            found = self._arrays.find(place)
        except NotFound as missing:
            raise Refused(f"volume {volume_id} is not on an array of the settings: {missing.message}") from None
        if found is None:
            raise Refused(
                f"no array has the vdisk '{place.vdisk}' of volume {volume_id}; put it back or correct the declaration"
            )
        array, vdisk = found
        self._untouchable(array, vdisk)
        target_of = array.mapping_to(vdisk.name)
        if target_of is not None and _writes(target_of):
            raise Refused(
                f"{_told(array, vdisk)} is the target of the FlashCopy mapping '{target_of.name}', which is "
                f"{target_of.status} at {target_of.progress} %; wait until that is through, or delete it"
            )
        if len(array.mappings("source_vdisk_name", vdisk.name)) >= _MAPPINGS - 1:
            raise Refused(f"{_told(array, vdisk)} has as many FlashCopy mappings as an array allows; delete snapshots")
        if not vdisk.online:
            raise Refused(f"{_told(array, vdisk)} is offline")
        return array, vdisk

    def restore(self, volume_id: str, copy: Copy) -> Vdisk:
        """The vdisk that can be put back to the copy; raises as `StorageDriver.check_restore`."""
        place, copy_id = self._volumes.place(volume_id), copy.id
        if copy.name.volume_id != volume_id:
            raise Refused(f"the copy {copy_id} is of volume {copy.name.volume_id}, not of {volume_id}")
        vdisk = copy.array.vdisk(place.vdisk)
        if vdisk is None:
            raise Refused(f"array '{copy.array.name}' has the copy {copy_id}, but not the vdisk '{place.vdisk}'")
        mapping = copy.mapping
        if mapping is not None and mapping.status in ("stopped", "stopping"):
            raise Damaged(f"the copy {copy_id} is lost: its mapping '{mapping.name}' was stopped on the array")
        if mapping is None or not copy.ready:
            raise Refused(f"the copy {copy_id} is not complete")
        if mapping.source != vdisk.name:
            raise Refused(
                f"the copy {copy_id} is of the vdisk '{mapping.source}', and the volume is '{vdisk.name}' now"
            )
        if copy.size != vdisk.size:
            raise Refused(
                f"{_told(copy.array, vdisk)} has {vdisk.size} bytes now and had {copy.size} when the copy was made; "
                "resize it back first"
            )
        self.restorable(copy.array, vdisk)
        return vdisk

    def restorable(self, array: Array, vdisk: Vdisk) -> None:
        """Raise `Refused` for a vdisk that may not be overwritten at present, whatever by."""
        self._untouchable(array, vdisk)
        present = array.mapping_to(vdisk.name)
        if present is None:
            if not vdisk.online:
                raise Refused(f"{_told(array, vdisk)} is offline")
            return
        if present.rc_controlled:
            raise Refused(f"{_told(array, vdisk)} is the target of '{present.name}', which remote copy controls")
        if present.name.startswith(naming.REVERSE) or present.whole:
            # Ours, or done with: the restore clears it away.
            return
        raise Refused(
            f"{_told(array, vdisk)} is the target of the FlashCopy mapping '{present.name}' ({present.progress} %); "
            "wait until that is through, or delete it"
        )

    def _untouchable(self, array: Array, vdisk: Vdisk) -> None:
        if vdisk.remote_copy:
            raise Refused(
                f"{_told(array, vdisk)} is in the remote copy relationship '{vdisk.remote_copy}'; "
                "stop and delete that first"
            )
        if vdisk.write_protected:
            raise Refused(f"{_told(array, vdisk)} is write-protected")
        controlled = [one for one in array.mappings("source_vdisk_name", vdisk.name) if one.rc_controlled]
        if controlled:
            raise Refused(
                f"{_told(array, vdisk)} has the FlashCopy mapping '{controlled[0].name}', which remote copy controls"
            )


def _writes(mapping: objects.Mapping) -> bool:
    return mapping.rc_controlled or mapping.status == "stopped" or (mapping.active and not mapping.whole)


def _told(array: Array, vdisk: Vdisk) -> str:
    return f"the vdisk '{vdisk.name}' of array '{array.name}'"
