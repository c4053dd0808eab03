"""A simulated array: vdisks and their bytes, mappings and the passing of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from tests.lab.storage_virtualize.objects import (
    GRAIN,
    JUNK,
    Behaviour,
    Group,
    Limits,
    Mapping,
    Refusal,
    Snapshot,
    Vdisk,
)

_ZEROES = bytes(GRAIN)


class Array:
    """All state of one array. Callers hold a lock around every call; nothing here is safe to use from threads."""

    def __init__(
        self,
        name: str = "array",
        behaviour: Behaviour | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.behaviour = behaviour or Behaviour()
        self.limits = limits or Limits()
        self.vdisks: dict[str, Vdisk] = {}
        self.mappings: dict[int, Mapping] = {}
        self.groups: dict[str, Group] = {}
        self.snapshots: dict[int, Snapshot] = {}
        #: The replication policies of volume groups, by the groups' names.
        self.policies: dict[str, str] = {}
        self.clock = clock
        self._advanced = clock()

    # Vdisks and what is in them.

    def add_vdisk(self, name: str, size: int, pool: str = "pool0", *, hidden: bool = False) -> Vdisk:
        """A new vdisk full of zeroes."""
        if name in self.vdisks:
            raise Refusal("CMMVC6035E", "The action failed as the object already exists.")
        if len(self.vdisks) >= self.limits.vdisks:
            raise Refusal("CMMVC5835E", "The VDisk was not created because the maximum number of VDisks exists.")
        if self.used() + size > self.limits.pool_capacity:
            raise Refusal("CMMVC8710E", "There is not enough free capacity in the storage pool to create the volume.")
        grains: list[bytes | Vdisk] = [_ZEROES] * -(-size // GRAIN)
        made = Vdisk(self._free_id(one.id for one in self.vdisks.values()), name, size, pool, grains, hidden=hidden)
        self.vdisks[name] = made
        return made

    def vdisk(self, key: str) -> Vdisk:
        """A vdisk by name or id."""
        found = self.vdisks.get(key)
        if found is None:
            found = next((one for one in self.vdisks.values() if str(one.id) == key), None)
        if found is None or found.hidden:
            raise Refusal("CMMVC5753E", "The specified object does not exist or is not a suitable candidate.")
        return found

    def used(self) -> int:
        """Bytes that are given away; thin vdisks count in full, to keep it simple."""
        return sum(one.size for one in self.vdisks.values())

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of a vdisk as a host reads them."""
        self.advance()
        vdisk = self.vdisks[name]
        if not vdisk.online:
            raise Refusal("CMMVC5999E", f"{name} is offline.")
        end = vdisk.size if length is None else min(vdisk.size, offset + length)
        first = offset // GRAIN
        data = b"".join(vdisk.resolve(grain) for grain in range(first, -(-end // GRAIN)))
        return data[offset - first * GRAIN : end - first * GRAIN]

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Write as a host does: what other vdisks read through this one goes to them first."""
        self.advance()
        vdisk = self.vdisks[name]
        while data:
            grain, within = divmod(offset, GRAIN)
            piece, data = data[: GRAIN - within], data[GRAIN - within :]
            old = vdisk.resolve(grain)
            self._hand_on(vdisk, grain)
            vdisk.grains[grain] = old[:within] + piece + old[within + len(piece) :]
            offset += len(piece)

    def resize(self, name: str, size: int) -> None:
        """Shrink or expand a vdisk, refused as the array refuses it for a vdisk with mappings."""
        vdisk = self.vdisks[name]
        count = -(-size // GRAIN)
        if len(vdisk.grains) > count:
            for grain in range(count, len(vdisk.grains)):
                self._hand_on(vdisk, grain)
        vdisk.grains = (vdisk.grains + [_ZEROES] * count)[:count]
        vdisk.size = size

    def remove_vdisk(self, vdisk: Vdisk, *, force: bool) -> None:
        """Delete a vdisk; by force with all mappings it takes part in, and all that depend on those."""
        involved = [one for one in self.mappings.values() if vdisk in (one.source, one.target)]
        if (involved or vdisk.mapped_to_host or vdisk.remote_copy) and not force:
            raise Refusal(
                "CMMVC5840E",
                "The virtual disk (VDisk) was not deleted because it is mapped to a host or because it is part of a "
                "FlashCopy or Remote Copy mapping, or is involved in an image mode migrate.",
            )
        if self.behaviour.protect_volumes and not vdisk.hidden:
            raise Refusal("CMMVC8783E", "The volume was not deleted because volume protection is on and it was active.")
        for one in involved:
            self.break_dependents(one.target)
            del self.mappings[one.id]
        for grain in range(len(vdisk.grains)):
            for other in self._readers(vdisk, grain):
                other.online = False
                other.grains[grain] = JUNK
        del self.vdisks[vdisk.name]

    # Who reads through whom.

    def _readers(self, vdisk: Vdisk, grain: int) -> list[Vdisk]:
        return [one for one in self.vdisks.values() if grain < len(one.grains) and one.grains[grain] is vdisk]

    def _hand_on(self, vdisk: Vdisk, grain: int) -> None:
        """Give the present bytes of a grain to those who read it through the vdisk, before it changes."""
        for reader in self._readers(vdisk, grain):
            reader.grains[grain] = vdisk.grains[grain]

    def dependents(self, vdisk: Vdisk) -> list[Mapping]:
        """The mappings whose target reads something through the vdisk."""
        return [one for one in self.mappings.values() if any(held is vdisk for held in one.target.grains)]

    def break_dependents(self, vdisk: Vdisk) -> None:
        """What -force does: every mapping that depends on the vdisk stops, and its target is worth nothing."""
        for one in self.dependents(vdisk):
            if one.status != "stopped":
                one.status = "stopped"
                one.target.online = False
                self.break_dependents(one.target)

    # Starting, stopping and time.

    def start(self, mapping: Mapping) -> None:
        """The instant: from now on the target reads as the source does at this moment."""
        source, target = mapping.source, mapping.target
        mapping.restoring = self.is_source(target) and mapping.restoring
        for grain in range(len(source.grains)):
            if source.reads_through(target, grain):
                continue
            self._hand_on(target, grain)
            target.grains[grain] = source
            if not mapping.restoring:
                # Older copies read through the newest one from now on, as IBM's cascades do.
                for reader in self._readers(source, grain):
                    if reader is not target:
                        reader.grains[grain] = target
        target.online = True
        mapping.started, mapping.status, mapping.budget = True, "copying", 0.0
        mapping.start_time = self.stamp()
        self._settle(mapping)

    def stop(self, mapping: Mapping, *, force: bool, split: bool) -> None:
        """Begin to stop: those who read through the target are given their grains first, which takes time."""
        if mapping.status in ("idle_or_copied", "stopped"):
            raise Refusal("CMMVC5912E", "The FlashCopy mapping was not stopped because it is in an invalid state.")
        if split and mapping.progress < 100:
            raise Refusal("CMMVC7110E", "The FlashCopy mapping was not split because its background copy is not done.")
        if mapping.status in ("preparing", "prepared"):
            mapping.status, mapping.started = "stopped", False
            mapping.target.online = False
        elif force:
            self.break_dependents(mapping.target)
            self._stopped(mapping)
        elif split or not self.dependents(mapping.target):
            self._stopped(mapping)
        else:
            mapping.status, mapping.budget = "stopping", 0.0
            mapping.to_clean = max(
                1, sum(bool(self._readers(mapping.target, grain)) for grain in self._grains(mapping))
            )
            mapping.clean_rate = mapping.clean_rate or 50

    def _stopped(self, mapping: Mapping) -> None:
        whole = mapping.progress == 100
        mapping.status = "idle_or_copied" if whole else "stopped"
        mapping.restoring = False
        if not whole:
            mapping.target.online = False
        elif mapping.autodelete:
            self.mappings.pop(mapping.id, None)

    def remove_mapping(self, mapping: Mapping, *, force: bool) -> None:
        """Delete a mapping; by force a stopped one, whose target comes online with what happens to be there."""
        if mapping.status not in ("idle_or_copied", "stopped"):
            raise Refusal("CMMVC5908E", "The FlashCopy mapping was not deleted because it is in an invalid state.")
        if mapping.status == "stopped":
            if not force:
                raise Refusal("CMMVC5908E", "The FlashCopy mapping is stopped; -force is required to delete it.")
            target = mapping.target
            target.grains = [held if isinstance(held, bytes) else JUNK for held in target.grains]
            target.online = True
        del self.mappings[mapping.id]

    def advance(self) -> None:
        """Let the time since the last call pass: preparing, copying and cleaning."""
        now = self.clock()
        seconds, self._advanced = max(0.0, now - self._advanced), now
        for mapping in list(self.mappings.values()):
            if mapping.status == "preparing" and now >= mapping.prepared_at:
                failed = self.behaviour.flush_failures > 0
                self.behaviour.flush_failures -= failed
                mapping.status = "stopped" if failed else "prepared"
            elif mapping.status == "copying" and mapping.copy_rate:
                self._work(mapping, seconds, mapping.copy_rate, self._copy)
            elif mapping.status == "stopping":
                self._work(mapping, seconds, mapping.clean_rate, self._clean)
            self._settle(mapping)
        for snapshot in list(self.snapshots.values()):
            self._age(snapshot)

    def wake(self) -> None:
        """Go on from here: what time has passed until now does not count."""
        self._advanced = self.clock()

    def _work(self, mapping: Mapping, seconds: float, rate: int, step: Callable[[Mapping, int], int]) -> None:
        mapping.budget += seconds * bytes_a_second(rate) * self.behaviour.speed
        for grain in self._grains(mapping):
            if mapping.budget < GRAIN:
                return
            mapping.budget -= step(mapping, grain)
        mapping.budget = 0.0

    def _copy(self, mapping: Mapping, grain: int) -> int:
        if isinstance(mapping.target.grains[grain], bytes):
            return 0
        mapping.target.grains[grain] = mapping.target.resolve(grain)
        return GRAIN

    def _clean(self, mapping: Mapping, grain: int) -> int:
        readers = self._readers(mapping.target, grain)
        held = mapping.target.grains[grain]
        self._hand_on(mapping.target, grain)
        return GRAIN if readers and isinstance(held, bytes) else 0

    def _settle(self, mapping: Mapping) -> None:
        """What follows from a mapping's grains: that it is through, or clean."""
        if mapping.status == "stopping" and not self.dependents(mapping.target):
            self._stopped(mapping)
        elif mapping.status == "copying" and mapping.target.held() == len(mapping.target.grains):
            if mapping.restoring:
                needed = self.behaviour.linger and self.is_source(mapping.target)
            else:
                needed = bool(self.dependents(mapping.target))
            if needed:
                return
            mapping.status, mapping.restoring = "idle_or_copied", False
            if mapping.autodelete:
                self.mappings.pop(mapping.id, None)

    def _age(self, snapshot: Snapshot) -> None:
        snapshot.restores = [one for one in snapshot.restores if one.id in self.mappings]
        if snapshot.deleting and not snapshot.restores:
            for one in snapshot.mappings:
                if one.status == "copying":
                    self.stop(one, force=False, split=False)
            if all(not one.active for one in snapshot.mappings):
                for one in snapshot.mappings:
                    self.mappings.pop(one.id, None)
                    self.remove_vdisk(one.target, force=False)
                del self.snapshots[snapshot.id]

    def clean_progress(self, mapping: Mapping) -> int:
        """Per cent of what others read through the target that has been handed on."""
        if mapping.status != "stopping":
            return 100
        left = sum(bool(self._readers(mapping.target, grain)) for grain in self._grains(mapping))
        return 100 - 100 * left // max(mapping.to_clean, 1)

    # Small things.

    def is_source(self, vdisk: Vdisk) -> bool:
        """Whether a vdisk is the source of an active mapping."""
        return any(one.source is vdisk and one.active for one in self.mappings.values())

    def linked(self, mapping: Mapping) -> Iterator[Mapping]:
        """The other mappings that are connected with one by shared vdisks, over any number of them."""
        seen, around = {mapping.id}, [mapping]
        while around:
            at = around.pop()
            for other in self.mappings.values():
                if other.id not in seen and {other.source, other.target} & {at.source, at.target}:
                    seen.add(other.id)
                    around.append(other)
                    yield other

    def new_mapping(self, name: str, source: Vdisk, target: Vdisk, *, hidden: bool = False) -> Mapping:
        number = self._free_id(self.mappings)
        made = Mapping(number, name or f"fcmap{number}", source, target, hidden=hidden)
        self.mappings[number] = made
        return made

    def free_number(self, taken: Iterable[int]) -> int:
        return self._free_id(taken)

    @staticmethod
    def stamp() -> str:
        return time.strftime("%y%m%d%H%M%S", time.gmtime())

    @staticmethod
    def _free_id(taken: Iterable[int]) -> int:
        used = set(taken)
        return next(number for number in range(len(used) + 1) if number not in used)

    @staticmethod
    def _grains(mapping: Mapping) -> range:
        return range(len(mapping.target.grains))


def bytes_a_second(rate: int) -> int:
    """What IBM's table says of a rate of 1 to 150: 128 KiB, doubled with every ten."""
    return (128 << 10) << ((rate - 1) // 10)
