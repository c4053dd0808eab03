"""The FlashCopy check: the mappings that a volume takes part in, in the words of the array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from stillframe.domain.errors import NotFound, NotSupported
from stillframe.drivers.flashcopy import FlashCopy
from stillframe.drivers.storage_virtualize import objects
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.arrays import Arrays
from stillframe.drivers.storage_virtualize.objects import Vdisk
from stillframe.drivers.storage_virtualize.volumes import Volumes

#: What every entry has; where the array's concise view has no such column, the value is null.
_KEYS: Final = (
    "name",
    "status",
    "source_vdisk_name",
    "target_vdisk_name",
    "progress",
    "incremental",
    "restoring",
    "restore_progress",
    "copyrate",
)


class FlashCopyCheck(FlashCopy):
    """See `FlashCopy`."""

    def __init__(self, arrays: Arrays, volumes: Volumes) -> None:
        self._arrays = arrays
        self._volumes = volumes

    def mappings(self, volume_id: str, *, details: bool) -> Sequence[Mapping[str, str | None]]:
        """See `FlashCopy`."""
        array, vdisk = self._locate(volume_id)
        rows = {int(row["id"] or 0): row for row in _involving(array, vdisk.name)}
        if details:
            found = [_detailed(array, number) for number in sorted(rows)]
            return [row for row in found if row is not None]
        return [{key: rows[number].get(key) for key in _KEYS} for number in sorted(rows)]

    def _locate(self, volume_id: str) -> tuple[Array, Vdisk]:
        try:
            place = self._volumes.place(volume_id)
            found = self._arrays.find(place)
        except NotFound as missing:
            raise _not_supported(volume_id, missing.message) from None
        if found is None:
            raise _not_supported(volume_id, f"No array of the settings has a vdisk '{place.vdisk}'.")
        return found


def _not_supported(volume_id: str, reason: str) -> NotSupported:
    return NotSupported(f"Volume {volume_id} is not on IBM Storage Virtualize (Storwize, SVC, FlashSystem). {reason}")


def _involving(array: Array, vdisk: str) -> list[dict[str, str | None]]:
    """The concise rows of the mappings that a vdisk takes part in, those that the system itself owns too."""
    found: list[dict[str, str | None]] = []
    for column in ("source_vdisk_name", "target_vdisk_name"):
        wanted = f"{column}={vdisk}"
        try:
            found += array.ask(objects.rows, "lsfcmap", filtervalue=wanted, showhidden=True)
        except NotSupported:
            # A code level before volume groups has none that it hides.
            found += array.ask(objects.rows, "lsfcmap", filtervalue=wanted)
    return found


def _detailed(array: Array, number: int) -> dict[str, str | None] | None:
    try:
        row = array.ask(objects.columns, "lsfcmap", str(number))
    except NotFound:
        return None
    # The array's own name of this column is copy_rate.
    known = {key: row.get(key) for key in _KEYS} | {"copyrate": row.get("copy_rate")}
    return {**known, **row}
