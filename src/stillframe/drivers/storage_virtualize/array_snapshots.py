"""The second kind of copy: snapshots that the array keeps itself, one for all volumes of a cut.

An array deletes such a snapshot as a whole. So a copy that is deleted is only struck off, in the snapshot's name, until
none is left. The name also says whether the cut was completed: an array keeps no notes.

An array may come to a command long after nobody expects it any more. So each command calls a snapshot by its name and
the UID of its parents, as IBM's documentation of `chsnapshot`, `restorefromsnapshot` and `rmsnapshot` allows
(FlashSystem 9.1), and not by its number, which an array gives to the next one. A restore gives the snapshot a name of
its own first: a command of an earlier restore then finds no such snapshot.
"""

from __future__ import annotations

import base64
import functools
import logging
import re
import secrets
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from stillframe.domain.errors import NotFound, NotSupported, Refused, StillframeError, Unavailable
from stillframe.domain.snapshot import CopyKind, CopyName, VolumeSnapshot
from stillframe.drivers.call import Call
from stillframe.drivers.storage import Cut
from stillframe.drivers.storage_virtualize import naming, objects
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.checks import CUT_SECONDS, Checks, Found, Mapped, Sources, by_array
from stillframe.drivers.storage_virtualize.objects import WHOLE, SnapshotMember, Vdisk
from stillframe.drivers.storage_virtualize.objects import Mapping as FlashCopyMapping
from stillframe.drivers.storage_virtualize.options import Options, Strategy
from stillframe.drivers.storage_virtualize.together import Crowd, alone
from stillframe.drivers.storage_virtualize.volumes import Volumes

LOG = logging.getLogger(__name__)

#: From this code level on an array restores from such snapshots.
LEVEL: Final = (8, 6, 2)

_NAMESPACE: Final = uuid.UUID("0d1c2b6e-8a55-5b0a-9d0e-6a3f5c9b1e44")
_LETTER: Final = "[A-Za-z0-9_-]"
_NAME: Final = re.compile(rf"sg([st])-({_LETTER}{{44}})(?:-([nr])([0-9a-f]{{13}})|a({_LETTER}{{14}}))")
_MOST: Final = 13 * 4
# What is left of ten bytes.
_ATTEMPT_BITS: Final = 80 - _MOST


@dataclass(frozen=True, slots=True)
class SnapshotName:
    """What the name of an array's snapshot says; `struck` has a bit for each volume whose copy was deleted.

    `attempt` is a restore's own number as long as a command of it may be under way, otherwise 0.
    """

    kind: CopyKind
    snapshot_id: str
    operation_id: str
    ready: bool = False
    struck: int = 0
    attempt: int = 0

    def __str__(self) -> str:
        ids = naming.write(self.snapshot_id) + naming.write(self.operation_id)
        whole = f"sg{naming.LETTERS[self.kind]}-{ids}"
        if not self.attempt:
            return f"{whole}-{'r' if self.ready else 'n'}{self.struck:013x}"
        numbers = (self.struck << _ATTEMPT_BITS | self.attempt).to_bytes(10, "big")
        return f"{whole}a{base64.urlsafe_b64encode(numbers)[:14].decode()}"

    def attempted(self) -> SnapshotName:
        """The name for one more restore."""
        return replace(self, attempt=1 + secrets.randbelow((1 << _ATTEMPT_BITS) - 1))

    def settled(self) -> SnapshotName:
        """The name when no restore is under way."""
        return replace(self, attempt=0)


@dataclass(frozen=True, slots=True)
class Member:
    """One volume's part of an array's snapshot; `position` is that of its bit, `parent` its parents' UID."""

    array: Array
    parent: str
    name: SnapshotName
    vdisk: str
    position: int
    count: int
    size: int | None

    @property
    def id(self) -> str:
        """It does not depend on the volume's id, which nobody knows any more once an instance is forgotten."""
        name = self.name
        key = f"{name.kind}/{name.snapshot_id}/{name.operation_id}/{self.array.name}/{self.vdisk}"
        return str(uuid.uuid5(_NAMESPACE, key))

    @property
    def struck(self) -> bool:
        return bool(self.name.struck >> self.position & 1)


class ArraySnapshots:
    """Cuts, restores and deletes by `addsnapshot`, `restorefromsnapshot` and `rmsnapshot`."""

    def __init__(self, options: Options, volumes: Volumes, checks: Checks) -> None:
        self._options = options
        self._volumes = volumes
        self._checks = checks
        self._able: dict[str, bool] = {}
        # A name that tells of several copies must not be changed for two of them at a time. One a array: a slow one
        # must not keep the others.
        self._naming: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def chosen(self, sources: Sequence[tuple[Array, Vdisk]]) -> bool:
        """Whether these vdisks are cut this way; raises `NotSupported` where they have to be and cannot."""
        if self._options.strategy is Strategy.FLASHCOPY:
            return False
        if self._options.strategy is Strategy.SNAPSHOTS:
            for array, _vdisk in sources:
                if not self._is_able(array):
                    raise NotSupported(
                        f"Array '{array.name}' has no snapshots that can be restored below code level "
                        f"{'.'.join(map(str, LEVEL))}; set storage_virtualize.copies to flashcopy or auto."
                    )
            return True
        return all(self._is_able(array) and not _has_mappings(array, vdisks) for array, vdisks in by_array(sources))

    def prepare(self, call: Call, sources: Sources) -> Callable[[Call], Cut]:
        """Remove what an earlier cut of these names left, and return the cut itself."""
        parts: defaultdict[str, dict[CopyName, Vdisk]] = defaultdict(dict)
        for name, (array, vdisk) in sources.items():
            parts[array.name][name] = vdisk
        if max(map(len, parts.values())) > _MOST:
            raise Refused(f"At most {_MOST} volumes can be cut by one snapshot of an array; choose fewer.")
        arrays = {array.name: array for array, _vdisk in sources.values()}
        first = next(iter(sources))
        for array in arrays.values():
            for member in self.on(array, first.snapshot_id):
                if (member.name.kind, member.name.operation_id) == (first.kind, first.operation_id):
                    with alone() as crowd:
                        self.delete(call, crowd, member)
        quick = [(arrays[key].at_once(1, CUT_SECONDS), part) for key, part in sorted(parts.items())]
        return partial(self._cut, quick)

    def _cut(self, parts: Sequence[tuple[Array, Mapping[CopyName, Vdisk]]], call: Call) -> Cut:
        call.check()
        made = []
        began = time.monotonic()
        for array, part in parts:
            label = _label(next(iter(part)))
            volumes = ":".join(vdisk.name for vdisk in part.values())
            array.make("addsnapshot", name=str(label), volumes=volumes, ignorelegacy=True)
            for name, vdisk in part.items():
                copy_id = Member(array, "", label, vdisk.name, 0, 0, None).id
                made.append(VolumeSnapshot(copy_id, name, vdisk.size, ready=False))
        window = 0.0 if len(parts) == 1 else (time.monotonic() - began) * 1000
        return Cut(tuple(made), simultaneous=len(parts) == 1, window_ms=window)

    def complete(self, call: Call, crowd: Crowd, member: Member) -> VolumeSnapshot:
        """Note that the cut is to be relied on."""
        call.check()
        array = member.array
        ready = crowd.ask(("ready", array.name), member.id, lambda ids: self._make_ready(array, ids))
        if ready is None:
            raise NotFound(f"The copy {member.id} is gone from array '{array.name}'.")
        done = self.described(ready)
        call.report(done.size, done.size)
        return done

    def _make_ready(self, array: Array, ids: Collection[str]) -> dict[str, Member]:
        with self._naming[array.name]:
            present = self.several_on(array, ids)
            for members in _by_snapshot(present.values()):
                if not members[0].name.ready:
                    _rename(members[0], replace(members[0].name, ready=True))
        return {key: replace(one, name=replace(one.name, ready=True)) for key, one in present.items()}

    def on(self, array: Array, snapshot_id: str | None) -> list[Member]:
        """The copies of an instance snapshot on an array, or of all of them."""
        return [member for member in self._all_on(array, snapshot_id) if not member.struck]

    def several_on(self, array: Array, copy_ids: Collection[str]) -> dict[str, Member]:
        """Those of these copies that there are, by their ids."""
        return _by_id(self.on(array, None), copy_ids)

    def described(self, member: Member) -> VolumeSnapshot:
        """The copy as the port wants it."""
        name = member.name
        volume_id = self._volumes.volume_on(member.array.name, member.vdisk) or naming.UNKNOWN_VOLUME
        size = member.size
        if size is None:
            vdisk = member.array.vdisk(member.vdisk)
            size = vdisk.size if vdisk else 0
        copy_name = CopyName(name.kind, name.snapshot_id, volume_id, name.operation_id)
        return VolumeSnapshot(member.id, copy_name, size, ready=name.ready)

    def check_restore(self, found: Found[Member]) -> Vdisk:
        """The vdisk that can be put back; raises as `StorageDriver.check_restore`."""
        member, place, vdisk = found.copy, found.place, found.vdisk
        if place.vdisk != member.vdisk:
            raise Refused(
                f"The copy {member.id} is of the vdisk '{member.vdisk}', not of '{place.vdisk}'; "
                "correct which vdisk is attached."
            )
        if vdisk is None:
            raise Refused(
                f"Array '{member.array.name}' has no vdisk '{place.vdisk}' any more; "
                "put it back or correct which vdisk is attached."
            )
        if not member.name.ready:
            raise Refused(f"The copy {member.id} is not complete; choose another instance snapshot.")
        if member.size not in (None, vdisk.size):
            raise Refused(
                f"The vdisk '{vdisk.name}' has {vdisk.size} bytes now and had {member.size} when the copy was made; "
                "resize it back first."
            )
        self._checks.restorable(member.array, vdisk, found.mapped)
        return vdisk

    def restore(self, call: Call, crowd: Crowd, found: Found[Member]) -> None:
        """Wait for a restore that runs already, begin this one, and wait for its end."""
        call.check()
        member = found.copy
        vdisk = self.check_restore(found)
        self._follow(call, crowd, member.array, vdisk)
        array = member.array
        outcome = crowd.ask(("put back", array.name), member.id, lambda ids: self._put_back(array, ids))
        if outcome is None:
            raise NotFound(f"The copy {member.id} is gone from array '{array.name}'.")
        with call.touching():
            if isinstance(outcome, StillframeError):
                raise outcome
        self._follow(call, crowd, member.array, vdisk)
        call.report(vdisk.size, vdisk.size)

    def delete(self, call: Call, crowd: Crowd, member: Member) -> None:
        """Strike the copy off; with the last one the array deletes the snapshot, cleaning up by itself."""
        call.check()
        array = member.array
        crowd.ask(("strike", array.name), member.id, lambda ids: self._strike(array, ids))

    def _strike(self, array: Array, ids: Collection[str]) -> dict[str, None]:
        with self._naming[array.name]:
            for members in _by_snapshot(one for one in self.on(array, None) if one.id in ids):
                first, name, count = members[0], members[0].name, members[0].count
                struck = functools.reduce(lambda bits, one: bits | 1 << one.position, members, name.struck)
                if struck != (1 << count) - 1:
                    _rename(first, replace(name.settled(), struck=struck))
                else:
                    array.remove_snapshot(str(name), first.parent, lambda: not self.several_on(array, ids))
        return {}

    def _put_back(self, array: Array, ids: Collection[str]) -> dict[str, Member | StillframeError]:
        """Begin to put the volumes of these copies back; raises what went wrong before anything was begun."""
        with self._naming[array.name]:
            present = list(self._all_on(array, None))
            chosen = _by_id((one for one in present if not one.struck), ids).values()
            vdisks = {one.vdisk for one in chosen}
            theirs = {one.name for one in chosen}
            others = [one for one in present if one.vdisk in vdisks and one.name.attempt and one.name not in theirs]
            for members in _by_snapshot(others):
                # A restore of another copy, of which nobody knows what became.
                _rename(members[0], members[0].name.settled())
            outcomes: dict[str, Member | StillframeError] = {}
            for members in _by_snapshot(chosen):
                outcomes |= _attempt(members)
        return outcomes

    def _follow(self, call: Call, crowd: Crowd, array: Array, vdisk: Vdisk) -> None:
        while True:
            running = crowd.ask(("restoring", array.name), vdisk.name, lambda vdisks: _restoring(array, vdisks))
            if running is None:
                return
            call.report(vdisk.size * running.progress // WHOLE, vdisk.size)
            call.check()
            time.sleep(self._options.poll_seconds)
            call.check()

    def _all_on(self, array: Array, snapshot_id: str | None) -> Iterator[Member]:
        if not self._is_able(array):
            return
        groups: defaultdict[str, list[SnapshotMember]] = defaultdict(list)
        for pattern in ["sg*"] if snapshot_id is None else naming.patterns("sg", snapshot_id):
            for row in array.ask(objects.members, "lsvolumesnapshot", filtervalue=f"snapshot_name={pattern}"):
                groups[row["snapshot_id"]].append(row)
        for rows in groups.values():
            name = _read(rows[0]["snapshot_name"])
            # What the array is deleting already is gone, whatever that still takes.
            if name is not None and rows[0]["state"] == "active":
                yield from _members(array, name, rows)

    def _is_able(self, array: Array) -> bool:
        if array.name not in self._able:
            self._able[array.name] = array.code_level() >= LEVEL
        return self._able[array.name]


def _attempt(members: Sequence[Member]) -> dict[str, Member | StillframeError]:
    """Begin to put the volumes of one snapshot's members back, as an attempt of its own."""
    name = members[0].name.attempted()
    named = [replace(one, name=name) for one in members]
    _rename(members[0], name)
    outcomes = _command(named)
    if len(named) > 1 and all(_refused(one) for one in outcomes.values()):
        # What is wrong with one of them need not keep the others.
        outcomes = {key: outcome for one in named for key, outcome in _command([one]).items()}
    if not any(isinstance(one, Unavailable) for one in outcomes.values()):
        try:
            _rename(named[0], name.settled())
        except StillframeError as problem:
            LOG.warning("the snapshot keeps the name of a restore that has begun: %s", problem.message)
    return outcomes


def _command(members: Sequence[Member]) -> dict[str, Member | StillframeError]:
    first, vdisks = members[0], ":".join(one.vdisk for one in members)
    try:
        first.array.run("restorefromsnapshot", snapshot=str(first.name), parentuid=first.parent, volumes=vdisks)
    except StillframeError as error:
        return dict.fromkeys((one.id for one in members), error)
    return {one.id: one for one in members}


def _refused(outcome: Member | StillframeError) -> bool:
    return isinstance(outcome, StillframeError) and not isinstance(outcome, Unavailable)


def _rename(member: Member, name: SnapshotName) -> None:
    """Rename a snapshot that still has the name that it was seen with."""
    try:
        member.array.run("chsnapshot", snapshot=str(member.name), parentuid=member.parent, name=str(name))
    except NotFound as missing:
        raise Unavailable(f"{missing.message} (it was renamed or removed a moment ago).") from None


def _members(array: Array, name: SnapshotName, rows: list[SnapshotMember]) -> Iterator[Member]:
    for position, row in enumerate(sorted(rows, key=lambda row: row["volume_id"])):
        size = row.get("volume_size")
        bytes_ = size if size != "" else None
        yield Member(array, row["parent_uid"], name, row["volume_name"], position, len(rows), bytes_)


def _by_id(members: Iterable[Member], ids: Collection[str]) -> dict[str, Member]:
    """Those that have these ids; of a cut that an array made once more, late, the one to be relied on."""
    return {one.id: one for one in sorted(members, key=lambda one: one.name.ready) if one.id in ids}


def _by_snapshot(members: Iterable[Member]) -> Collection[list[Member]]:
    found: defaultdict[SnapshotName, list[Member]] = defaultdict(list)
    for one in members:
        found[one.name].append(one)
    return found.values()


def _has_mappings(array: Array, vdisks: Sequence[Vdisk]) -> bool:
    mapped = Mapped.of(array, [vdisk.name for vdisk in vdisks])
    return bool(mapped.sources or mapped.targets)


def _restoring(array: Array, vdisks: Collection[str]) -> dict[str, FlashCopyMapping]:
    """What copies to these vdisks at present, system-owned mappings too."""
    return {one.target: one for one in array.hidden_to(vdisks) if one.active and not one.whole}


def _label(name: CopyName) -> SnapshotName:
    return SnapshotName(name.kind, name.snapshot_id, name.operation_id)


def _read(text: str) -> SnapshotName | None:
    found = _NAME.fullmatch(text)
    if found is None:
        return None
    ids, struck, attempt = found[2], int(found[4] or "0", 16), 0
    if found[5]:
        numbers = int.from_bytes(base64.urlsafe_b64decode(f"{found[5]}=="), "big")
        struck, attempt = numbers >> _ATTEMPT_BITS, numbers & (1 << _ATTEMPT_BITS) - 1
    kind, ready = naming.KINDS[found[1]], found[3] != "n"
    return SnapshotName(kind, naming.read(ids[:22]), naming.read(ids[22:]), ready, struck, attempt)
