"""Putting a volume back to one of its copies, by a reverse FlashCopy mapping."""

from __future__ import annotations

import logging
import time
from typing import Final

from stillframe.domain.errors import BackendError, Refused, Unavailable
from stillframe.drivers.call import Call
from stillframe.drivers.storage_virtualize import naming
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.checks import Checks
from stillframe.drivers.storage_virtualize.copies import Copy
from stillframe.drivers.storage_virtualize.deleting import clear
from stillframe.drivers.storage_virtualize.objects import WHOLE, Mapping, Vdisk
from stillframe.drivers.storage_virtualize.options import Options

LOG = logging.getLogger(__name__)

#: How often an array may say that a restore has begun which then has not.
_STARTS_AT_MOST: Final = 5


class Restorer:
    """Restores one volume at a time; the volumes of an instance are restored beside each other."""

    def __init__(self, options: Options, checks: Checks) -> None:
        self._options = options
        self._checks = checks

    def restore(self, call: Call, volume_id: str, copy: Copy) -> None:
        """Start a reverse mapping, or find the one that was started before, and wait until it has copied everything.

        Raises as `Checks.restore`, and `BackendError` where the array gives up.
        """
        call.check()
        vdisk = self._checks.restore(volume_id, copy)
        name = naming.reverse(volume_id, copy.id)
        if not self._take_place(call, copy.array, vdisk, name):
            copy.array.make(
                "mkfcmap",
                source=copy.vdisk,
                target=vdisk.name,
                name=name,
                copyrate=self._options.copy_rate,
                cleanrate=self._options.clean_rate,
            )
        self._follow(call, copy, name)
        call.report(copy.size, copy.size)

    def _take_place(self, call: Call, array: Array, vdisk: Vdisk, name: str) -> bool:
        """Clear away another mapping to the volume, for an array allows one; True if this very one is there."""
        present = array.mapping_to(vdisk.name)
        if present is not None and present.name == name and present.status != "stopped" and not present.whole:
            if present.active:
                call.touch()
            return True
        if present is not None:
            # What it had copied so far is there, and no more will come.
            call.touch()
            LOG.info("array '%s': clearing away mapping '%s' (%s)", array.name, present.name, present.status)
            clear(call, array, present, self._options.poll_seconds)
        call.check()
        return False

    def _follow(self, call: Call, copy: Copy, name: str) -> None:
        """Wait until the mapping says that it has copied everything, for nothing else is a sign that it has."""
        pace, starts = _Pace(name), 0
        while True:
            mapping = copy.array.mapping(name)
            if mapping is None:
                raise BackendError(
                    f"the mapping '{name}' vanished from array '{copy.array.name}' before it had copied everything; "
                    "somebody has deleted it"
                )
            if mapping.whole:
                self._finish(call, copy.array, mapping)
                return
            idle = mapping.status in ("idle_or_copied", "prepared")
            if mapping.status in ("stopped", "suspended", "stopping") or (idle and starts == _STARTS_AT_MOST):
                raise BackendError(
                    f"the restore by mapping '{name}' of array '{copy.array.name}' is {mapping.status} at "
                    f"{mapping.progress} %; the array's event log says why"
                )
            if idle:
                starts += 1
                self._start(call, copy.array, mapping)
                if starts == 1:
                    continue
            pace.tell(mapping.progress)
            call.report(copy.size * mapping.progress // WHOLE, copy.size)
            call.check()
            time.sleep(self._options.poll_seconds)
            call.check()

    def _finish(self, call: Call, array: Array, mapping: Mapping) -> None:
        try:
            clear(call, array, mapping, self._options.poll_seconds)
        except Unavailable as problem:
            # The volume is whole; what comes next clears the mapping away.
            LOG.warning("array '%s': mapping '%s' is left over: %s", array.name, mapping.name, problem)

    def _start(self, call: Call, array: Array, mapping: Mapping) -> None:
        try:
            with call.touching():
                array.run("startfcmap", mapping.name, prep=mapping.status != "prepared", restore=True)
        except (BackendError, Refused):
            # The volume has not been touched, and must not be kept from other mappings.
            _undo(array, mapping.name)
            raise


def _undo(array: Array, name: str) -> None:
    """Undo a mapping that was never started."""
    mapping = array.mapping(name)
    if mapping is not None and mapping.status in ("preparing", "prepared"):
        array.stop_mapping(name)
    if mapping is not None and not mapping.active:
        array.remove_mapping(name)


class _Pace:
    """Tells the log how far a restore is at every tenth of it, and how long the rest will take at this pace."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._began: tuple[float, int] | None = None
        self._told = -1

    def tell(self, progress: int) -> None:
        now = time.monotonic()
        seconds, before = self._began = self._began or (now, progress)
        if progress // 10 == self._told:
            return
        self._told = progress // 10
        gained = progress - before
        left = f", about {(WHOLE - progress) * (now - seconds) / gained:.0f} s left" if gained > 0 else ""
        LOG.info("mapping '%s': %d %%%s", self._name, progress, left)
