"""One array in the words of the driver: look-ups that find nothing return None, removals of nothing are fine."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from stillframe.domain.errors import NotFound
from stillframe.drivers.storage_virtualize import objects
from stillframe.drivers.storage_virtualize.client import Client
from stillframe.drivers.storage_virtualize.objects import Mapping, Vdisk

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
    ) -> Any:
        """See `Client.run`."""
        return self._client.run(command, subject, seconds or self._seconds, **parameters)

    def remove(self, command: str, subject: str | None = None, /, **parameters: str | int | bool) -> None:
        """Run a command that removes or stops something, which may be gone already."""
        try:
            self.run(command, subject, **parameters)
        except NotFound:
            return

    def vdisk(self, name: str) -> Vdisk | None:
        """A vdisk by its name."""
        try:
            return objects.vdisk(self.run("lsvdisk", name, bytes=True))
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
        rows = self.run("lsfcmap", filtervalue=f"{column}={value}")
        return [objects.mapping(row) for row in rows or ()]

    def mapping_to(self, vdisk: str) -> Mapping | None:
        """The mapping whose target a vdisk is; an array allows one."""
        return next(iter(self.mappings("target_vdisk_name", vdisk)), None)

    def group_status(self, name: str, seconds: float | None = None) -> str | None:
        """The status of a consistency group, or None."""
        rows = self.run("lsfcconsistgrp", None, seconds, filtervalue=f"name={name}")
        return next((str(row["status"]) for row in rows or ()), None)

    def _listed(self, **parameters: str) -> list[tuple[str, int]]:
        rows = self.run("lsvdisk", bytes=True, **parameters)
        return [(row["name"], int(row["capacity"])) for row in rows or ()]

    def code_level(self) -> tuple[int, ...]:
        """The code level as numbers, such as (8, 6, 2, 0)."""
        told = str(self.run("lssystem")["code_level"])
        return tuple(int(part) for part in told.partition(" ")[0].split(".") if part.isdigit())
