"""Waiting for what a service of the cloud has accepted and does in its own time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from stillframe.domain.errors import BackendError
from stillframe.drivers.call import Call


@dataclass(frozen=True, slots=True)
class Waiting:
    """How often is looked, in seconds: soon at first, then ever less, up to `longest`."""

    first: float = 0.1
    longest: float = 2.0

    def until(self, call: Call, seconds: float, what: str) -> Iterator[None]:
        """Let a loop look again and again, and let it go on no longer than the call may.

        Raises `BackendError` once `seconds` have passed.
        """
        pause, end = self.first, time.monotonic() + seconds
        while True:
            call.check()
            yield
            if time.monotonic() > end:
                raise BackendError(f"Waited {seconds:.0f} s for {what}, in vain.")
            time.sleep(pause)
            pause = min(self.longest, 1.5 * pause)
