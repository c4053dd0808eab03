"""Deleting a copy so that older copies, which may read through it, keep what they have."""

from __future__ import annotations

import logging

from stillframe.domain.errors import Refused
from stillframe.drivers.call import Call
from stillframe.drivers.storage_virtualize import naming
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.copies import Copy
from stillframe.drivers.storage_virtualize.objects import Mapping
from stillframe.drivers.storage_virtualize.waiting import wait_until

LOG = logging.getLogger(__name__)


class Deleter:
    """Never says -force to `stopfcmap` or `rmvdisk`: that would stop every mapping that depends on the copy."""

    def __init__(self, poll_seconds: float) -> None:
        self._poll_seconds = poll_seconds

    def delete(self, call: Call, copy: Copy) -> None:
        """Remove the copy's mapping, then its group if that is empty, and its vdisk last: it is what `find` looks for.

        Raises `Refused` while something is copied from the copy, and `Interrupted`.
        """
        call.check()
        self._free_the_copy(call, copy)
        if copy.mapping is not None:
            self._remove_mapping(call, copy, copy.mapping)
        self._remove_group(copy)
        copy.array.remove_vdisk(copy.vdisk)

    def _free_the_copy(self, call: Call, copy: Copy) -> None:
        for one in copy.array.mappings("source_vdisk_name", copy.vdisk):
            ours = one.name.startswith(naming.REVERSE)
            if one.active and not one.whole and one.status != "stopping":
                what = "a volume is being restored from it" if ours else "it is being copied"
                raise Refused(f"the copy {copy.id} cannot be deleted yet: {what} by mapping '{one.name}'")
            if not ours and not one.whole:
                raise Refused(f"the copy {copy.id} cannot be deleted: mapping '{one.name}' has it as its source")
            clear(call, copy.array, one, self._poll_seconds)

    def _remove_mapping(self, call: Call, copy: Copy, mapping: Mapping) -> None:
        if mapping.rc_controlled:
            raise Refused(f"the copy {copy.id} cannot be deleted: remote copy controls its mapping '{mapping.name}'")
        if mapping.group:
            self._leave_group(copy.array, mapping)
        stop(call, copy.array, mapping, self._poll_seconds)
        copy.array.remove_mapping(mapping.name)

    def _leave_group(self, array: Array, mapping: Mapping) -> None:
        if mapping.active:
            # The only way out of a group while it copies; its mappings stand alone from then on.
            array.remove_group(mapping.group, force=True)
        elif mapping.status in ("preparing", "prepared"):
            # Somebody who deletes another copy of the group may be faster.
            array.stop_group(mapping.group)

    def _remove_group(self, copy: Copy) -> None:
        group = copy.target.group
        if copy.array.group_status(group) is not None and not copy.array.mappings("group_name", group):
            copy.array.remove_group(group)


def stop(call: Call, array: Array, mapping: Mapping, poll_seconds: float, *, split: bool = False) -> None:
    """Stop a mapping that stands alone, and wait until those who read through its target have their bytes.

    Mappings are called by their names: an array gives the number of a deleted one to the next.
    """

    def stopped() -> bool:
        now = array.mapping(mapping.name)
        if now is None or now.status in ("stopped", "idle_or_copied"):
            return True
        if now.status != "stopping":
            array.stop_mapping(mapping.name, split=split)
            now = array.mapping(mapping.name)
        return now is None or now.status in ("stopped", "idle_or_copied")

    wait_until(call, poll_seconds, stopped)


def clear(call: Call, array: Array, mapping: Mapping, poll_seconds: float) -> None:
    """Stop and remove a mapping whose target is not needed, or whole."""
    stop(call, array, mapping, poll_seconds, split=mapping.whole)
    array.remove_mapping(mapping.name)
