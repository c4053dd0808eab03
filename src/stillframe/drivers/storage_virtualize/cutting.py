"""Cutting volumes at one instant, by a FlashCopy consistency group on each array that has some of them."""

from __future__ import annotations

import itertools
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from stillframe.domain.errors import BackendError, Conflict, Damaged, NotFound, Refused
from stillframe.domain.snapshot import CopyName, VolumeSnapshot
from stillframe.drivers.call import Call
from stillframe.drivers.storage import Cut
from stillframe.drivers.storage_virtualize import naming
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.checks import CUT_SECONDS, Sources
from stillframe.drivers.storage_virtualize.copies import Copies, Copy
from stillframe.drivers.storage_virtualize.deleting import Deleter
from stillframe.drivers.storage_virtualize.objects import Vdisk
from stillframe.drivers.storage_virtualize.options import Options
from stillframe.drivers.storage_virtualize.waiting import wait_until

#: How often the cache of the volumes may fail to be written out before somebody has to look at the array.
_PREPARED_AT_MOST: Final = 5

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """What is cut on one array."""

    array: Array
    group: str
    sources: Mapping[CopyName, Vdisk]


class Cutter:
    """Cuts by mappings to thin vdisks of their own that nothing is copied to but what is written over."""

    def __init__(self, options: Options, copies: Copies, deleter: Deleter) -> None:
        self._options = options
        self._copies = copies
        self._deleter = deleter

    def prepare(self, call: Call, sources: Sources) -> Callable[[Call], Cut]:
        """Do all that may be done while the guest still runs, and return the cut: only the start of the groups."""
        for name, (array, _vdisk) in sources.items():
            self._drop_started(call, array, name)
        parts = _parts(sources)
        for part in parts:
            self._make(call, part)
        for part in parts:
            self._get_ready(call, part)
        return partial(self._cut, sources, parts)

    def _cut(self, sources: Sources, parts: Sequence[Part], call: Call) -> Cut:
        if any(part.array.group_status(part.group, CUT_SECONDS) != "prepared" for part in parts):
            # What was prepared has come undone since.
            self.prepare(call, sources)
        call.check()
        began = time.monotonic()
        for part in parts:
            part.array.run("startfcconsistgrp", part.group, CUT_SECONDS)
        window = 0.0 if len(parts) == 1 else (time.monotonic() - began) * 1000
        made = tuple(VolumeSnapshot(name.uuid, name, vdisk.size, ready=False) for name, (_, vdisk) in sources.items())
        return Cut(made, simultaneous=len(parts) == 1, window_ms=window)

    def complete(self, call: Call, copy: Copy) -> VolumeSnapshot:
        """Let the copy's mapping stand alone, for an array has few groups; raises `Damaged` if it was never cut."""
        call.check()
        copy_id = copy.id
        mapping = copy.mapping
        if mapping is None or not mapping.usable:
            status = "none" if mapping is None else mapping.status
            raise Damaged(f"the copy {copy_id} cannot become ready: the status of its mapping is {status}")
        if mapping.group:
            copy.array.remove_group(mapping.group, force=True)
            present = self._copies.one_on(copy.array, copy_id)
            if present is None:
                raise NotFound(f"the copy {copy_id} is gone from array '{copy.array.name}'")
            copy = present
        if not copy.ready:
            raise BackendError(f"the copy {copy_id} has not left its group, whatever array '{copy.array.name}' says")
        call.report(copy.size, copy.size)
        return copy.described()

    def _drop_started(self, call: Call, array: Array, name: CopyName) -> None:
        """A copy of this name that was cut before is of another instant."""
        copy = self._copies.one_on(array, name.uuid)
        if copy is not None and copy.mapping is not None and copy.mapping.started:
            self._deleter.delete(call, copy)

    def _make(self, call: Call, part: Part) -> None:
        """The vdisks first: without one of them nobody would find the group again."""
        for name, source in part.sources.items():
            call.check()
            self._make_vdisk(part.array, name, source)
        if part.array.group_status(part.group) is None:
            _make(
                part.array, lambda: part.array.group_status(part.group) is not None, "mkfcconsistgrp", name=part.group
            )
        for name, source in part.sources.items():
            call.check()
            self._make_mapping(part, name, source)

    def _make_vdisk(self, array: Array, name: CopyName, source: Vdisk) -> None:
        target = naming.target(name)
        present = array.vdisk(target)
        if present is not None and present.size == source.size:
            return
        if present is not None:
            # The volume was resized since an earlier attempt.
            mapping = array.mapping_to(target)
            if mapping is not None:
                array.remove_mapping(mapping.name)
            array.remove_vdisk(target)

        def is_there() -> bool:
            made = array.vdisk(target)
            return made is not None and made.size == source.size

        _make(
            array,
            is_there,
            "mkvdisk",
            name=target,
            mdiskgrp=source.pool,
            iogrp=source.iogrp,
            size=source.size,
            unit="b",
            rsize="2%",
            autoexpand=True,
        )

    def _make_mapping(self, part: Part, name: CopyName, source: Vdisk) -> None:
        def is_there() -> bool:
            made = part.array.mapping(naming.forward(name))
            return made is not None and (made.group, made.source) == (part.group, source.name)

        if is_there():
            return
        part.array.remove_mapping(naming.forward(name))
        _make(
            part.array,
            is_there,
            "mkfcmap",
            source=source.name,
            target=naming.target(name),
            name=naming.forward(name),
            copyrate=0,
            cleanrate=self._options.clean_rate,
            consistgrp=part.group,
        )

    def _get_ready(self, call: Call, part: Part) -> None:
        begun = itertools.count()

        def prepared() -> bool:
            status = part.array.group_status(part.group)
            if status is None:
                raise NotFound(
                    f"the group '{part.group}' vanished from array '{part.array.name}' while it was prepared"
                )
            if status in ("idle_or_copied", "stopped"):
                # An array falls back to stopped where it could not flush its cache.
                if next(begun) == _PREPARED_AT_MOST:
                    raise BackendError(
                        f"array '{part.array.name}' cannot prepare the group '{part.group}', which is {status} after "
                        f"{_PREPARED_AT_MOST} tries; the array's event log says why"
                    )
                part.array.run("prestartfcconsistgrp", part.group)
            elif status not in ("preparing", "prepared"):
                raise Refused(f"the group '{part.group}' of array '{part.array.name}' is {status}, not being prepared")
            return status == "prepared"

        wait_until(call, min(self._options.poll_seconds, 0.1), prepared)


def _parts(sources: Sources) -> list[Part]:
    chosen: defaultdict[str, dict[CopyName, Vdisk]] = defaultdict(dict)
    arrays: dict[str, Array] = {}
    for name, (array, vdisk) in sources.items():
        arrays[array.name] = array
        chosen[array.name][name] = vdisk
    return [Part(array, naming.group_of(next(iter(chosen[key]))), chosen[key]) for key, array in sorted(arrays.items())]


def _make(array: Array, is_there: Callable[[], bool], command: str, **parameters: str | int | bool) -> None:
    """Make something that was not there a moment ago; if it is there now, an earlier reply was lost on the way."""
    try:
        array.make(command, **parameters)
    except Conflict as conflict:
        if not is_there():
            raise BackendError(f"{conflict.message} (but what is there is another)") from None
        LOG.info("array '%s': %s is there already", array.name, parameters.get("name"))
