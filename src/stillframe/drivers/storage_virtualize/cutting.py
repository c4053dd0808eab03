"""Cutting volumes at one instant, by a FlashCopy consistency group on each array that has some of them."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stillframe.domain.errors import Conflict, Damaged, NotFound, Refused
from stillframe.domain.snapshot import CopyName, VolumeSnapshot
from stillframe.drivers.call import Call
from stillframe.drivers.storage import Cut
from stillframe.drivers.storage_virtualize import naming
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.checks import Checks
from stillframe.drivers.storage_virtualize.copies import Copies
from stillframe.drivers.storage_virtualize.deleting import Deleter
from stillframe.drivers.storage_virtualize.objects import Vdisk
from stillframe.drivers.storage_virtualize.options import Options
from stillframe.drivers.storage_virtualize.waiting import wait_until

LOG = logging.getLogger(__name__)

Sources = Mapping[CopyName, Vdisk]


@dataclass(frozen=True, slots=True)
class Part:
    """What is cut on one array."""

    array: Array
    group: str
    sources: Sources


class Cutter:
    """Cuts by mappings to thin vdisks of their own that nothing is copied to but what is written over."""

    def __init__(self, options: Options, checks: Checks, copies: Copies, deleter: Deleter) -> None:
        self._options = options
        self._checks = checks
        self._copies = copies
        self._deleter = deleter
        self._prepared: dict[tuple[CopyName, ...], list[Part]] = {}

    def prepare(self, call: Call, names: Sequence[CopyName]) -> None:
        """Do all that may be done while the guest still runs: afterwards the groups only have to be started."""
        parts = self._parts(names)
        for name in names:
            self._drop_started(call, name)
        for part in parts:
            self._make(call, part)
        for part in parts:
            self._get_ready(call, part)
        self._prepared[tuple(names)] = parts

    def cut(self, call: Call, names: Sequence[CopyName]) -> Cut:
        """Start the groups. What `prepare` has not done, or what has come undone, is done first."""
        parts = self._prepared.pop(tuple(names), None)
        if parts is None or any(part.array.group_status(part.group) != "prepared" for part in parts):
            self.prepare(call, names)
            parts = self._prepared.pop(tuple(names))
        call.check()
        began = time.monotonic()
        for part in parts:
            part.array.run("startfcconsistgrp", part.group)
        window = 0.0 if len(parts) == 1 else (time.monotonic() - began) * 1000
        sizes = {name: vdisk.size for part in parts for name, vdisk in part.sources.items()}
        made = tuple(VolumeSnapshot(name.uuid, name, sizes[name], ready=False) for name in names)
        return Cut(made, simultaneous=len(parts) == 1, window_ms=window)

    def complete(self, call: Call, copy_id: str) -> VolumeSnapshot:
        """Let the copy's mapping stand alone, for an array has few groups; raises `Damaged` if it was never cut."""
        call.check()
        copy = self._copies.get(copy_id)
        mapping = copy.mapping
        if mapping is None or not mapping.usable:
            status = "none" if mapping is None else mapping.status
            raise Damaged(f"the copy {copy_id} cannot become ready: the status of its mapping is {status}")
        if mapping.group:
            copy.array.remove("rmfcconsistgrp", mapping.group, force=True)
            copy = self._copies.get(copy_id)
        call.report(copy.size, copy.size)
        return copy.described()

    def _parts(self, names: Sequence[CopyName]) -> list[Part]:
        chosen: defaultdict[str, dict[CopyName, Vdisk]] = defaultdict(dict)
        arrays: dict[str, Array] = {}
        for name in names:
            array, vdisk = self._checks.source(name.volume_id)
            arrays[array.name] = array
            chosen[array.name][name] = vdisk
        return [
            Part(array, naming.group_of(next(iter(chosen[key]))), chosen[key]) for key, array in sorted(arrays.items())
        ]

    def _drop_started(self, call: Call, name: CopyName) -> None:
        """A copy of this name that was cut before is of another instant."""
        copy = self._copies.find(name.uuid)
        if copy is not None and copy.mapping is not None and copy.mapping.started:
            self._deleter.delete(call, copy)

    def _make(self, call: Call, part: Part) -> None:
        """The vdisks first: without one of them nobody would find the group again."""
        for name, source in part.sources.items():
            call.check()
            self._make_vdisk(part.array, name, source)
        if part.array.group_status(part.group) is None:
            _make(part.array, "mkfcconsistgrp", name=part.group)
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
                array.remove("rmfcmap", mapping.name, force=True)
            array.remove("rmvdisk", target)
        _make(
            array,
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
        present = part.array.mapping(naming.forward(name))
        if present is not None and present.group == part.group and present.source == source.name:
            return
        if present is not None:
            part.array.remove("rmfcmap", present.name, force=True)
        _make(
            part.array,
            "mkfcmap",
            source=source.name,
            target=naming.target(name),
            name=naming.forward(name),
            copyrate=0,
            cleanrate=self._options.clean_rate,
            consistgrp=part.group,
        )

    def _get_ready(self, call: Call, part: Part) -> None:
        def prepared() -> bool:
            status = part.array.group_status(part.group)
            if status is None:
                raise NotFound(
                    f"the group '{part.group}' vanished from array '{part.array.name}' while it was prepared"
                )
            if status in ("idle_or_copied", "stopped"):
                # An array falls back to stopped where it could not flush its cache.
                part.array.run("prestartfcconsistgrp", part.group)
            elif status not in ("preparing", "prepared"):
                raise Refused(f"the group '{part.group}' of array '{part.array.name}' is {status}, not being prepared")
            return status == "prepared"

        wait_until(call, min(self._options.poll_seconds, 0.1), prepared)


def _make(array: Array, command: str, **parameters: str | int | bool) -> None:
    """Make something that was not there a moment ago; if it is there now, an earlier reply was lost on the way."""
    try:
        array.run(command, **parameters)
    except Conflict:
        LOG.info("array '%s': %s is there already", array.name, parameters.get("name"))
