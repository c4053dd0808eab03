"""What is on record about a job that comes round by time, and what follows from it; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as all workers know it; all times are the database's, in UTC, without a zone.

    `interval`: seconds between the end of one run and the beginning of the next; 0: its worker has switched it off.
    `known_since`: when it came on record. `ended_at`: when its last run ended, however it did; `succeeded_at`: when the
    last one ended well. `renewed_at` and `claimed_until` are of the worker that has the claim on it. `counts`: what its
    runs have counted, by name, each as the last run found that could count it.
    """

    name: str
    interval: float
    known_since: datetime
    ended_at: datetime | None = None
    succeeded_at: datetime | None = None
    worker: str | None = None
    renewed_at: datetime | None = None
    claimed_until: datetime | None = None
    counts: Mapping[str, int] | None = None

    def waits(self, now: datetime, interval: float) -> float:
        """Seconds until a worker may begin it that runs it at this interval; 0: at once."""
        return max(self._turn(now, interval), self._claim(now))

    def overdue(self, now: datetime) -> float:
        """Seconds that it should have ended well before; 0 for one that is not late, or switched off."""
        if not self.interval:
            return 0.0
        last = self.succeeded_at or self.known_since
        return max(0.0, (now - last).total_seconds() - self.interval)

    def _turn(self, now: datetime, interval: float) -> float:
        passed = (now - (self.ended_at or self.known_since)).total_seconds()
        # An end far in the future was noted before the clock was set back.
        return 0.0 if abs(passed) >= interval else interval - passed

    def _claim(self, now: datetime) -> float:
        if self.claimed_until is None or self.renewed_at is None:
            return 0.0
        holds: timedelta = self.claimed_until - self.renewed_at
        # Nor does a claim hold from a time that has not come yet.
        return (self.claimed_until - now).total_seconds() if abs(now - self.renewed_at) < holds else 0.0
