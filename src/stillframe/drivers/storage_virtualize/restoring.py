"""Putting a volume back to one of its copies, by a reverse FlashCopy mapping."""

from __future__ import annotations

import logging
import time
from typing import Final

from stillframe.domain.errors import BackendError, NotFound, Refused, Unavailable
from stillframe.drivers.call import Call
from stillframe.drivers.storage_virtualize import naming
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.checks import Checks, Found
from stillframe.drivers.storage_virtualize.copies import Copy
from stillframe.drivers.storage_virtualize.deleting import clear, seen
from stillframe.drivers.storage_virtualize.objects import WHOLE, Mapping
from stillframe.drivers.storage_virtualize.options import Options
from stillframe.drivers.storage_virtualize.together import Crowd

LOG = logging.getLogger(__name__)

#: How often an array may say that a restore has begun which then has not.
_STARTS_AT_MOST: Final = 5


class Restorer:
    """Restores one volume at a time; the volumes of an instance are restored beside each other."""

    def __init__(self, options: Options, checks: Checks) -> None:
        self._options = options
        self._checks = checks

    def restore(self, call: Call, crowd: Crowd, volume_id: str, found: Found[Copy]) -> None:
        """Start a reverse mapping, or find the one that was started before, and wait until it has copied everything.

        Raises as `Checks.restore`, and `BackendError` where the array gives up.
        """
        call.check()
        copy = found.copy
        vdisk = self._checks.restore(volume_id, found)
        name = naming.reverse(volume_id, copy.id)
        present = self._take_place(call, crowd, copy.array, found.mapped.targets.get(vdisk.name), name)
        if present is None:
            copy.array.make(
                "mkfcmap",
                source=copy.vdisk,
                target=vdisk.name,
                name=name,
                copyrate=self._options.copy_rate,
                cleanrate=self._options.clean_rate,
            )
            present = Mapping("", name, copy.vdisk, vdisk.name, "", "idle_or_copied", 0, rc_controlled=False)
        self._follow(call, crowd, copy, present)
        call.report(copy.size, copy.size)

    def _take_place(self, call: Call, crowd: Crowd, array: Array, present: Mapping | None, name: str) -> Mapping | None:
        """Clear away another mapping to the volume, for an array allows one; this very one is returned."""
        if present is None:
            return None
        if present.name == name and present.status != "stopped" and not present.whole:
            if present.active:
                call.touch()
            return present
        # What it had copied so far is there, and no more will come.
        call.touch()
        LOG.info("array '%s': clearing away mapping '%s' (%s)", array.name, present.name, present.status)
        clear(call, crowd, array, present, self._options.poll_seconds)
        call.check()
        return None

    def _follow(self, call: Call, crowd: Crowd, copy: Copy, mapping: Mapping) -> None:
        """Wait until the mapping says that it has copied everything, for nothing else is a sign that it has."""
        pace, starts, name = _Pace(mapping.name), 0, mapping.name
        now: Mapping | None = mapping
        while True:
            if now is None:
                raise BackendError(
                    f"The mapping '{name}' vanished from array '{copy.array.name}' before it had copied everything: "
                    "somebody has deleted it. Retry the restore, or roll it back."
                )
            if now.whole:
                self._finish(call, crowd, copy.array, now)
                return
            idle = now.status in ("idle_or_copied", "prepared")
            if now.status in ("stopped", "suspended", "stopping") or (idle and starts == _STARTS_AT_MOST):
                raise BackendError(
                    f"The restore by mapping '{name}' of array '{copy.array.name}' is {now.status} at "
                    f"{now.progress} %; the array's event log says why."
                )
            if idle:
                starts += 1
                self._start(call, copy.array, now)
            if not idle or starts > 1:
                pace.tell(now.progress)
                call.report(copy.size * now.progress // WHOLE, copy.size)
                call.check()
                time.sleep(self._options.poll_seconds)
                call.check()
            now = seen(crowd, copy.array, mapping)

    def _finish(self, call: Call, crowd: Crowd, array: Array, mapping: Mapping) -> None:
        try:
            clear(call, crowd, array, mapping, self._options.poll_seconds)
        except Unavailable as problem:
            # The volume is whole; what comes next clears the mapping away.
            LOG.warning("array '%s': mapping '%s' is left over: %s", array.name, mapping.name, problem)

    def _start(self, call: Call, array: Array, mapping: Mapping) -> None:
        try:
            with call.touching():
                array.run("startfcmap", mapping.name, prep=mapping.status != "prepared", restore=True)
        except NotFound as missing:
            raise BackendError(
                f"{missing.message} (it was made a moment ago, and somebody has deleted it; retry the restore)."
            ) from None
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
