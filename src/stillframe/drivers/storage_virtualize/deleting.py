"""Deleting a copy so that older copies, which may read through it, keep what they have."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import Final

from stillframe.domain.errors import BackendError, Refused
from stillframe.drivers.call import Call
from stillframe.drivers.storage_virtualize import naming
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.copies import Copy
from stillframe.drivers.storage_virtualize.objects import Mapping
from stillframe.drivers.storage_virtualize.together import Crowd

LOG = logging.getLogger(__name__)

_AT_REST: Final = ("stopped", "idle_or_copied")


class Deleter:
    """Never says -force to `stopfcmap` or `rmvdisk`: that would stop every mapping that depends on the copy."""

    def __init__(self, poll_seconds: float) -> None:
        self._poll_seconds = poll_seconds

    def delete(self, call: Call, crowd: Crowd, copy: Copy) -> None:
        """Remove the copy's mapping, then its group if that is empty, and its vdisk last: it is what `find` looks for.

        Raises `Refused` while something is copied from the copy, and `Interrupted`.
        """
        call.check()
        array = copy.array
        self._free_the_copy(call, crowd, copy)
        if copy.mapping is not None:
            self._remove_mapping(call, crowd, copy, copy.mapping)
        group = copy.target.group
        crowd.ask(("empty group", array.name), group, lambda groups: _remove_empty(array, groups))
        array.remove_vdisk(copy.vdisk)
        if crowd.ask(("gone", array.name), copy.vdisk, array.vdisks) is not None:
            raise BackendError(
                f"Array '{array.name}': rmvdisk {copy.vdisk}: the array says that it is done, and it is not; "
                "see its event log."
            )

    def _free_the_copy(self, call: Call, crowd: Crowd, copy: Copy) -> None:
        array = copy.array
        for one in crowd.ask(("from", array.name), copy.vdisk, lambda vdisks: _copied_from(array, vdisks)) or ():
            ours = one.name.startswith(naming.REVERSE)
            if one.active and not one.whole and one.status != "stopping":
                what = "a volume is being restored from it" if ours else "it is being copied"
                raise Refused(
                    f"The copy {copy.id} cannot be deleted yet: {what} by mapping '{one.name}'; wait for its end."
                )
            if not ours and not one.whole:
                raise Refused(
                    f"The copy {copy.id} cannot be deleted: mapping '{one.name}' has it as its source; "
                    "delete that mapping first."
                )
            clear(call, crowd, array, one, self._poll_seconds)

    def _remove_mapping(self, call: Call, crowd: Crowd, copy: Copy, mapping: Mapping) -> None:
        if mapping.rc_controlled:
            raise Refused(
                f"The copy {copy.id} cannot be deleted: remote copy controls its mapping '{mapping.name}'; "
                "stop and delete that relationship first."
            )
        present: Mapping | None = mapping
        if mapping.group:
            _leave_group(crowd, copy.array, mapping)
            present = seen(crowd, copy.array, mapping)
        if present is not None:
            stop(call, crowd, copy.array, present, self._poll_seconds)
            copy.array.remove_mapping(present.name)


def seen(crowd: Crowd, array: Array, mapping: Mapping) -> Mapping | None:
    """A mapping as it is now, or None.

    Mappings are called by their names: an array gives the number of a deleted one to the next.
    """
    now = crowd.ask(("to", array.name), mapping.target, array.targets)
    return now if now is not None and now.name == mapping.name else None


def stop(call: Call, crowd: Crowd, array: Array, mapping: Mapping, poll_seconds: float, *, split: bool = False) -> None:
    """Stop a mapping that stands alone, and wait until those who read through its target have their bytes.

    `mapping` is as it was seen just now.
    """
    now: Mapping | None = mapping
    while now is not None and now.status not in _AT_REST:
        call.check()
        if now.status == "stopping":
            time.sleep(poll_seconds)
            call.check()
        else:
            array.stop_mapping(now.name, split=split)
        now = seen(crowd, array, mapping)


def clear(call: Call, crowd: Crowd, array: Array, mapping: Mapping, poll_seconds: float) -> None:
    """Stop and remove a mapping whose target is not needed, or whole."""
    stop(call, crowd, array, mapping, poll_seconds, split=mapping.whole)
    array.remove_mapping(mapping.name)


def _leave_group(crowd: Crowd, array: Array, mapping: Mapping) -> None:
    if mapping.active:
        ungroup(crowd, array, mapping.group)
    elif mapping.status in ("preparing", "prepared"):
        crowd.ask(("stop group", array.name), mapping.group, lambda groups: _each(array.stop_group, groups))


def ungroup(crowd: Crowd, array: Array, group: str) -> None:
    """Let the mappings of a group stand alone: the only way out of it while they copy."""
    crowd.ask(
        ("ungroup", array.name), group, lambda groups: _each(lambda one: array.remove_group(one, force=True), groups)
    )


def _remove_empty(array: Array, groups: Collection[str]) -> dict[str, None]:
    for group in groups:
        if array.group_status(group) is not None and not array.mappings("group_name", [group]):
            array.remove_group(group)
    return {}


def _copied_from(array: Array, vdisks: Collection[str]) -> dict[str, list[Mapping]]:
    found: dict[str, list[Mapping]] = {}
    for one in array.mappings("source_vdisk_name", vdisks):
        found.setdefault(one.source, []).append(one)
    return found


def _each(do: Callable[[str], object], names: Collection[str]) -> dict[str, None]:
    for name in names:
        do(name)
    return {}
