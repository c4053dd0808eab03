"""One array in the words of the driver: look-ups that find nothing return None, removals of nothing are fine."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final, TypeVar

from stillframe.domain.errors import BackendError, Conflict, NotFound, Refused, Unavailable
from stillframe.drivers.storage_virtualize import objects
from stillframe.drivers.storage_virtualize.client import Client
from stillframe.drivers.storage_virtualize.objects import Mapping, Vdisk
from stillframe.foreign.replies import Malformed

T = TypeVar("T")

_PREPARED: Final = ("preparing", "prepared")
_AT_REST: Final = ("stopping", "stopped", "idle_or_copied")

#: Up to so many vdisks are asked for one by one, and more of them by the list of all.
_FEW: Final = 8


class Array:
    """One array."""

    def __init__(self, client: Client, seconds: float | None = None) -> None:
        self._client = client
        self._seconds = seconds

    @property
    def name(self) -> str:
        return self._client.name

    def within(self, seconds: float) -> Array:
        """The same array, for those who give each command so long at most."""
        return Array(self._client, seconds)

    def run(
        self, command: str, subject: str | None = None, seconds: float | None = None, /, **parameters: str | int | bool
    ) -> None:
        """See `Client.run`: a command that changes something and has nothing to say."""
        self.ask(objects.nothing, command, subject, seconds, **parameters)

    def make(self, command: str, seconds: float | None = None, /, **parameters: str | int | bool) -> None:
        """See `Client.run`: a command that makes something, and says so."""
        self.ask(objects.made, command, None, seconds, **parameters)

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
        answer = self._client.run(command, subject, seconds or self._seconds, **parameters)
        try:
            return shape(answer)
        except Malformed as problem:
            raise Unavailable(f"array '{self.name}': {command}: {problem}") from None

    def remove_vdisk(self, name: str) -> None:
        """Remove a vdisk, and see that it is gone; one that was gone already is fine."""
        self._unless(lambda: self.vdisk(name) is None, "rmvdisk", name)
        if self.vdisk(name) is not None:
            raise BackendError(f"array '{self.name}': rmvdisk {name}: the array says that it is done, and it is not")

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

    def remove_snapshot(self, number: str, gone: Callable[[], bool]) -> None:
        """Remove a snapshot of the array's."""
        self._unless(gone, "rmsnapshot", None, snapshotid=number)

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
                raise BackendError(f"{refusal.message} (but it is there)") from None
            raise

    def vdisk(self, name: str) -> Vdisk | None:
        """A vdisk by its name."""
        try:
            return self.ask(objects.vdisk, "lsvdisk", name, bytes=True)
        except NotFound:
            return None

    def vdisks(self, pattern: str) -> list[tuple[str, int]]:
        """Names and sizes of the vdisks whose names match; IBM's documentation allows one `*`, first or last."""
        return self._listed(filtervalue=f"name={pattern}")

    def sizes(self, names: Collection[str]) -> dict[str, int]:
        """The sizes in bytes of those of these vdisks that there are."""
        if len(names) > _FEW:
            return {name: size for name, size in self._listed() if name in names}
        return {one.name: one.size for one in map(self.vdisk, names) if one is not None}

    def mapping(self, name: str) -> Mapping | None:
        """A mapping by its name."""
        return next(iter(self.mappings("name", name)), None)

    def mappings(self, column: str, value: str) -> list[Mapping]:
        """The mappings with a value in a column of `lsfcmap`."""
        return self.ask(objects.mappings, "lsfcmap", filtervalue=f"{column}={value}")

    def mapping_to(self, vdisk: str) -> Mapping | None:
        """The mapping whose target a vdisk is; an array allows one."""
        return next(iter(self.mappings("target_vdisk_name", vdisk)), None)

    def group_status(self, name: str, seconds: float | None = None) -> str | None:
        """The status of a consistency group, or None."""
        return next(iter(self.ask(objects.statuses, "lsfcconsistgrp", None, seconds, filtervalue=f"name={name}")), None)

    def code_level(self) -> tuple[int, ...]:
        """The code level as numbers, such as (8, 6, 2, 0)."""
        return self.ask(objects.code_level, "lssystem")

    def _listed(self, **parameters: str) -> list[tuple[str, int]]:
        return self.ask(objects.sizes, "lsvdisk", bytes=True, **parameters)
