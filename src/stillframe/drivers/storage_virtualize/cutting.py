"""Cutting volumes at one instant, by a FlashCopy consistency group on each array that has some of them."""

from __future__ import annotations

import itertools
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from stillframe.drivers.storage_virtualize.deleting import Deleter, seen, ungroup
from stillframe.drivers.storage_virtualize.objects import Vdisk
from stillframe.drivers.storage_virtualize.options import Options
from stillframe.drivers.storage_virtualize.together import Crowd, alone
from stillframe.drivers.storage_virtualize.waiting import wait_until

#: How often the cache of the volumes may fail to be written out before somebody has to look at the array.
_PREPARED_AT_MOST: Final = 5
#: On each array: a look whether all is prepared still, and the start.
_COMMANDS_OF_A_CUT: Final = 2

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
        parts = _parts(sources)
        for part in parts:
            self._make(call, part, self._present(call, part))
        for part in parts:
            self._get_ready(call, part)
        quick = [replace(part, array=part.array.at_once(_COMMANDS_OF_A_CUT, CUT_SECONDS)) for part in parts]
        return partial(self._cut, sources, quick)

    def _cut(self, sources: Sources, parts: Sequence[Part], call: Call) -> Cut:
        if any(part.array.group_status(part.group) != "prepared" for part in parts):
            # What was prepared has come undone since.
            self.prepare(call, sources)
        call.check()
        began = time.monotonic()
        for part in parts:
            part.array.run("startfcconsistgrp", part.group)
        window = 0.0 if len(parts) == 1 else (time.monotonic() - began) * 1000
        made = tuple(VolumeSnapshot(name.uuid, name, vdisk.size, ready=False) for name, (_, vdisk) in sources.items())
        return Cut(made, simultaneous=len(parts) == 1, window_ms=window)

    def complete(self, call: Call, crowd: Crowd, copy: Copy) -> VolumeSnapshot:
        """Let the copy's mapping stand alone, for an array has few groups; raises `Damaged` if it was never cut."""
        call.check()
        array, mapping = copy.array, copy.mapping
        if mapping is None or not mapping.usable:
            status = "none" if mapping is None else mapping.status
            raise Damaged(
                f"The copy {copy.id} cannot become ready: the status of its mapping is {status}; "
                "take the snapshot again."
            )
        if mapping.group:
            ungroup(crowd, array, mapping.group)
            copy = replace(copy, mapping=seen(crowd, array, mapping))
        if copy.mapping is None:
            raise NotFound(f"The copy {copy.id} is gone from array '{array.name}'.")
        if not copy.ready:
            raise BackendError(
                f"The copy {copy.id} has not left its group, whatever array '{array.name}' says; see its event log."
            )
        call.report(copy.size, copy.size)
        return copy.described()

    def _present(self, call: Call, part: Part) -> dict[CopyName, Copy]:
        """The copies of these names that there are and were not cut; one that was cut before is of another instant."""
        present = self._copies.named(part.array, part.sources.keys())
        cut = [copy for copy in present.values() if copy.mapping is not None and copy.mapping.started]
        with alone() as crowd:
            for copy in cut:
                self._deleter.delete(call, crowd, copy)
        return self._copies.named(part.array, part.sources.keys()) if cut else present

    def _make(self, call: Call, part: Part, present: Mapping[CopyName, Copy]) -> None:
        """The vdisks first: without one of them nobody would find the group again."""
        made = dict(present)
        for name, source in part.sources.items():
            call.check()
            copy = made.get(name)
            if copy is not None and copy.size != source.size:
                # The volume was resized since an earlier attempt.
                if copy.mapping is not None:
                    part.array.remove_mapping(copy.mapping.name)
                part.array.remove_vdisk(copy.vdisk)
                del made[name]
                copy = None
            if copy is None:
                _make_vdisk(part.array, naming.target(name), source)
        if part.array.group_status(part.group) is None:
            _make(
                part.array, lambda: part.array.group_status(part.group) is not None, "mkfcconsistgrp", name=part.group
            )
        for name, source in part.sources.items():
            call.check()
            self._make_mapping(part, name, source, made.get(name))

    def _make_mapping(self, part: Part, name: CopyName, source: Vdisk, copy: Copy | None) -> None:
        wanted = (naming.forward(name), part.group, source.name)
        present = copy.mapping if copy is not None else None
        if present is not None:
            if (present.name, present.group, present.source) == wanted:
                return
            part.array.remove_mapping(present.name)

        def is_there() -> bool:
            made = part.array.mapping(naming.forward(name))
            return made is not None and (made.name, made.group, made.source) == wanted

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
                    f"The group '{part.group}' vanished from array '{part.array.name}' while it was prepared."
                )
            if status in ("idle_or_copied", "stopped"):
                # An array falls back to stopped where it could not flush its cache.
                if next(begun) == _PREPARED_AT_MOST:
                    raise BackendError(
                        f"Array '{part.array.name}' cannot prepare the group '{part.group}', which is {status} after "
                        f"{_PREPARED_AT_MOST} tries; the array's event log says why."
                    )
                part.array.run("prestartfcconsistgrp", part.group)
            elif status not in ("preparing", "prepared"):
                raise Refused(
                    f"The group '{part.group}' of array '{part.array.name}' is {status}, not being prepared; "
                    "take the snapshot again."
                )
            return status == "prepared"

        wait_until(call, min(self._options.poll_seconds, 0.1), prepared)


def _parts(sources: Sources) -> list[Part]:
    chosen: defaultdict[str, dict[CopyName, Vdisk]] = defaultdict(dict)
    arrays: dict[str, Array] = {}
    for name, (array, vdisk) in sources.items():
        arrays[array.name] = array
        chosen[array.name][name] = vdisk
    return [Part(array, naming.group_of(next(iter(chosen[key]))), chosen[key]) for key, array in sorted(arrays.items())]


def _make_vdisk(array: Array, target: str, source: Vdisk) -> None:
    def is_there() -> bool:
        made = array.vdisk(target)
        return made is not None and made.size == source.size

    _make(
        array,
        is_there,
        "mkvdisk",
        name=target,
        mdiskgrp=array.primary_pool(source),
        iogrp=source.iogrp,
        size=source.size,
        unit="b",
        rsize="2%",
        autoexpand=True,
    )


def _make(array: Array, is_there: Callable[[], bool], command: str, **parameters: str | int | bool) -> None:
    """Make something that was not there a moment ago; if it is there now, an earlier reply was lost on the way."""
    try:
        array.make(command, **parameters)
    except Conflict as conflict:
        if not is_there():
            raise BackendError(f"{conflict.message} (but what is there is another; rename or remove it).") from None
        LOG.info("array '%s': %s is there already", array.name, parameters.get("name"))
