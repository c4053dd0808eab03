"""Waiting for what a service of the cloud has accepted and does in its own time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from stillframe.domain.errors import BackendError, Unavailable
from stillframe.drivers.call import Call

LOG = logging.getLogger(__name__)

T = TypeVar("T")


class TimedOut(BackendError):
    """What was waited for has neither come nor failed; nobody knows whether it still will."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How often is looked, in seconds: soon at first, then ever less, up to `longest`."""

    first: float = 0.1
    longest: float = 1.0

    def until(
        self,
        call: Call,
        seconds: float,
        what: str,
        look: Callable[[], T | None],
        watch: Callable[[], None] = lambda: None,
    ) -> T:
        """Look again and again, as long as the call may go on, and return the first answer that is not None.

        A service that cannot be asked for a while says nothing about what it was asked to do. `watch` is called after
        each look in vain, and raises what makes waiting useless. Raises `TimedOut`.
        """
        pause, end = self.first, time.monotonic() + seconds
        while True:
            call.check()
            try:
                found = look()
                if found is None:
                    watch()
            except Unavailable as error:
                LOG.warning("task %s: waiting for %s: %s", call.operation_id, what, error)
                found = None
            if found is not None:
                return found
            if time.monotonic() > end:
                raise TimedOut(
                    f"Waited {seconds:.0f} s for {what}, in vain; the log of the service that does it says why."
                )
            time.sleep(pause)
            pause = min(self.longest, 1.5 * pause)
