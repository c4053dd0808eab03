"""The sweeper: now and then, what is settled is put away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from stillframe.service.background import Job, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stillframe.store.jobs import Guard

_INTERVAL: Final = 60.0


class Sweep(Protocol):
    """See `stillframe.engine.engine.Engine.sweep`."""

    def __call__(self, check: Callable[[], None], guard: Guard) -> None: ...


class Sweeper(Job):
    """Closes books that a killed process left open, gives back the instances of what is settled, forgets records."""

    name = "sweeper"

    def __init__(self, sweep: Sweep, hang_seconds: float, interval: float = _INTERVAL) -> None:
        self._sweep = sweep
        self.hang_seconds = hang_seconds
        self.interval = interval

    def run(self, run: Run) -> Mapping[str, int]:
        """See `Job`."""
        self._sweep(run.check, run.guard)
        return {}
