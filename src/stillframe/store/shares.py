"""The limits of what may run at a time, for the settings to name without the rest of the store."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shares:
    """How many operations may run at a time, over all workers: of one project, on one host, on one back end.

    0 is no limit.
    """

    project: int = 0
    host: int = 0
    backend: int = 0

    def of(self, place: str) -> int:
        """The limit of a place such as `host:NAME`."""
        return {"project": self.project, "host": self.host, "backend": self.backend}[place.partition(":")[0]]
