"""One array in the words of the driver: look-ups that find nothing return None, removals of nothing are fine."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import takewhile
from typing import Any, Final, TypeVar

from stillframe.domain.errors import BackendError, Conflict, NotFound, Refused, Unavailable
from stillframe.drivers.storage_virtualize import objects
from stillframe.drivers.storage_virtualize.client import Client
from stillframe.drivers.storage_virtualize.objects import Mapping, Vdisk
from stillframe.drivers.storage_virtualize.shared import TAKING_TURNS, Turn
from stillframe.foreign.replies import Malformed

T = TypeVar("T")

_PREPARED: Final = ("preparing", "prepared")
_AT_REST: Final = ("stopping", "stopped", "idle_or_copied")

_COLUMNS: Final[dict[str, Callable[[Mapping], str]]] = {
    "name": lambda one: one.name,
    "source_vdisk_name": lambda one: one.source,
    "target_vdisk_name": lambda one: one.target,
    "group_name": lambda one: one.group,
}


class Array:
    """One array."""

    def __init__(self, client: Client, seconds: float | None = None, turn: Turn = TAKING_TURNS) -> None:
        self._client = client
        self._seconds = seconds
        self._turn = turn

    @property
    def name(self) -> str:
        return self._client.name

    def within(self, seconds: float) -> Array:
        """The same array, for those who give each command so long at most."""
        return Array(self._client, seconds, self._turn)

    def at_once(self, commands: int, seconds: float) -> Array:
        """The same array, for whoever is to hold a guest still: so many commands do not wait for their turn.

        What is waited for is waited for now: until the array can be expected to take as many in one second.
        """
        return Array(self._client, seconds, self._client.reserve(commands))

    def run(
        self, command: str, subject: str | None = None, seconds: float | None = None, /, **parameters: str | int | bool
    ) -> None:
        """See `Client.run`: a command that changes something and has nothing to say."""
        self.ask(objects.nothing, command, subject, seconds, **parameters)

    def make(self, command: str, /, **parameters: str | int | bool) -> None:
        """See `Client.run`: a command that makes something, and says so."""
        self.ask(objects.made, command, None, None, **parameters)

    def ask(
        self,
        shape: Callable[[Any], T],
        command: str,
        subject: str | None = None,
        seconds: float | None = None,
        /,
        **parameters: str | int | bool,
    ) -> T:
        """See `Client.run`: the answer as a shape of `objects`; one of another shape says nothing."""
        answer = self._client.run(command, subject, seconds or self._seconds, self._turn, **parameters)
        try:
            return shape(answer)
        except Malformed as problem:
            raise Unavailable(f"Array '{self.name}': {command}: {problem}") from None

    def remove_vdisk(self, name: str) -> None:
        """Remove a vdisk; one that was gone already is fine. Whether it is gone then is for the caller to see."""
        self._unless(lambda: self.vdisk(name) is None, "rmvdisk", name)

    def remove_mapping(self, name: str) -> None:
        """Remove a mapping that does not copy any more; one that was gone already is fine."""
        self._unless(lambda: self.mapping(name) is None, "rmfcmap", name, force=True)

    def remove_group(self, name: str, *, force: bool = False) -> None:
        """Remove a consistency group; with `force` its mappings stand alone from then on."""
        self._unless(lambda: self.group_status(name) is None, "rmfcconsistgrp", name, force=force)

    def stop_group(self, name: str) -> None:
        """Undo what was prepared for a start."""
        self._unless(lambda: self.group_status(name) not in _PREPARED, "stopfcconsistgrp", name)

    def stop_mapping(self, name: str, *, split: bool = False) -> None:
        """Begin to stop a mapping; what it is to be then is waited for elsewhere."""

        def stops() -> bool:
            now = self.mapping(name)
            return now is None or now.status in _AT_REST

        self._unless(stops, "stopfcmap", name, split=split)

    def remove_snapshot(self, name: str, parent: str, gone: Callable[[], bool]) -> None:
        """Remove a snapshot of the array's, by its name and the UID of its parents."""
        self._unless(gone, "rmsnapshot", None, snapshot=name, parentuid=parent)

    def _unless(
        self, done: Callable[[], bool], command: str, subject: str | None, /, **parameters: str | int | bool
    ) -> None:
        """Run a command; a refusal is none where a look shows that it is as wished, whatever the code says."""
        try:
            self.run(command, subject, **parameters)
        except (BackendError, Conflict, NotFound, Refused) as refusal:
            if done():
                return
            if isinstance(refusal, NotFound):
                raise BackendError(f"{refusal.message} (but it is there; see the array's event log).") from None
            raise

    def vdisk(self, name: str) -> Vdisk | None:
        """A vdisk by its name."""
        return self.vdisks([name]).get(name)

    def vdisks(self, names: Collection[str]) -> dict[str, Vdisk]:
        """Those of these vdisks that there are, by one command."""
        found = self.ask(objects.vdisks, "lsvdisk", bytes=True, **_filter("name", names)) if names else []
        return {one.name: one for one in found if one.name in names}

    def matching(self, pattern: str) -> list[Vdisk]:
        """The vdisks whose names match; IBM's documentation allows one `*`, first or last."""
        return self.ask(objects.vdisks, "lsvdisk", bytes=True, filtervalue=f"name={pattern}")

    def primary_pool(self, vdisk: Vdisk) -> str:
        """The pool that a vdisk, or the primary copy of a mirrored one, is in."""
        if vdisk.pool not in ("", "many"):
            return vdisk.pool
        return self.ask(objects.primary_pool, "lsvdisk", vdisk.name, bytes=True)

    def mapping(self, name: str) -> Mapping | None:
        """A mapping by its name."""
        return next(iter(self.mappings("name", [name])), None)

    def mappings(self, column: str, values: Collection[str]) -> list[Mapping]:
        """The mappings that have one of these in a column of `lsfcmap`, which holds names, by one command."""
        found = self.ask(objects.mappings, "lsfcmap", **_filter(column, values)) if values else []
        return [one for one in found if _COLUMNS[column](one) in values]

    def targets(self, vdisks: Collection[str]) -> dict[str, Mapping]:
        """The mappings whose targets these vdisks are; an array allows one each."""
        return {one.target: one for one in self.mappings("target_vdisk_name", vdisks)}

    def hidden_to(self, vdisks: Collection[str]) -> list[Mapping]:
        """The mappings whose targets these vdisks are, and of those that the system itself owns too."""
        found = self.ask(objects.mappings, "lsfcmap", showhidden=True, **_filter("target_vdisk_name", vdisks))
        return [one for one in found if one.target in vdisks]

    def group_status(self, name: str) -> str | None:
        """The status of a consistency group, or None."""
        return next(iter(self.ask(objects.statuses, "lsfcconsistgrp", filtervalue=f"name={name}")), None)

    def replication_policies(self, volume_group: str) -> list[str]:
        """The names of the replication policies that a volume group has."""
        return self.ask(objects.replication_policies, "lsvolumegroup", volume_group)

    def code_level(self) -> tuple[int, ...]:
        """The code level as numbers, such as (8, 6, 2, 0)."""
        return self.ask(objects.code_level, "lssystem")


def _filter(column: str, values: Collection[str]) -> dict[str, str]:
    """A filter that leaves all of these in, and of others as few as one `*` at its end can do; none leaves all."""
    first, last = min(values), max(values)
    if first == last:
        return {"filtervalue": f"{column}={first}"}
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    prefix = "".join(letter for letter, _ in alike)
    return {"filtervalue": f"{column}={prefix}*"} if prefix else {}
