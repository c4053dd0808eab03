"""One attempt at an operation that is running in this process, and whether it may go on."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stillframe.domain.errors import DeadlineExceeded, Superseded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from stillframe.domain.operation import Operation
    from stillframe.engine.progress import Meter
    from stillframe.engine.work import Queue

LOG = logging.getLogger(__name__)

_LOOK_EVERY: Final = 1.0


def clock() -> float:
    """Seconds that go on while the process or the whole machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class NoAttempt:
    """What the work of an operation is planned with where it is only looked at; nothing can be done by it."""

    operation: Operation

    def check(self) -> None:
        """See `Attempt`."""
        raise Superseded(f"Task {self.operation.id} is only looked at here.")

    def check_claim(self) -> None:
        """See `Attempt`."""
        self.check()

    def report(self, task_name: str, done: int, total: int) -> None:
        """See `Attempt`."""

    def percent(self) -> int:
        """See `Attempt`."""
        return 0


class RunningAttempt:
    """See `stillframe.engine.work.Attempt`.

    The claim holds until `prolong` says otherwise. As long as that is sure, the store is asked no more than once a
    second; when it is not, before anything else is done.
    """

    def __init__(
        self, operation: Operation, queue: Queue, now: Callable[[], datetime], claimed_at: float, seconds: float
    ) -> None:
        self.operation = operation
        self.meter: Meter | None = None
        # Nothing more is done about it than to settle it.
        self.settling = False
        # When the operation was settled because a call of it hangs, by `clock`.
        self.hung_at: float | None = None
        self._queue = queue
        self._now = now
        self._seconds = seconds
        self._looked_at = claimed_at
        self._sure_until = claimed_at + seconds

    def prolong(self, asked_at: float) -> None:
        """The claim was renewed by a request that was sent at a time of `clock`."""
        self._sure_until = max(self._sure_until, asked_at + self._seconds)

    def check(self) -> None:
        """See `Attempt`."""
        if self._now() > self.operation.deadline:
            raise DeadlineExceeded(f"The operation did not end by its deadline, {self.operation.deadline} UTC.")
        self._check_claim(settled_too=True)

    def check_claim(self) -> None:
        """See `Attempt`."""
        self._check_claim(settled_too=False)

    def report(self, task_name: str, done: int, total: int) -> None:
        """See `Attempt`."""
        if self.meter is not None and total > 0:
            self.meter.report(task_name, done / total)

    def percent(self) -> int:
        """See `Attempt`."""
        return 0 if self.meter is None else self.meter.percent()

    def _check_claim(self, *, settled_too: bool) -> None:
        moment = clock()
        sure = moment < self._sure_until
        if sure and moment - self._looked_at < _LOOK_EVERY:
            return
        try:
            if not sure:
                # Takes the claim back, unless somebody else has it by now.
                self._queue.renew([self.operation], self._seconds)
            held = self._queue.holds(self.operation, open_only=settled_too)
        except Unavailable as error:
            if not sure:
                raise
            # A store that cannot be asked says nothing about the platform that is being worked on.
            LOG.warning("task %s goes on unasked: %s", self.operation.id, error)
            return
        if not held:
            raise Superseded(f"Task {self.operation.id} has been settled already, or taken over by another worker.")
        if not sure:
            self.prolong(moment)
        self._looked_at = moment
