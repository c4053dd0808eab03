"""One clock for all processes: the database's, for what one of them notes and another compares."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from stillframe.domain.errors import StillframeError
from stillframe.store.clock import utc_now

if TYPE_CHECKING:
    from stillframe.store.database import Database

LOG = logging.getLogger(__name__)

_GOOD_FOR: Final = 60.0


class DatabaseClock:
    """The present by the database's clock, in UTC, without a zone; safe to use from threads.

    Between two looks, a minute apart, it goes on by what has passed here since, which setting this machine's clock does
    not change. Looks are made in a thread of their own. An SQLite file has no other clock than this machine's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._looking = False
        self._known: tuple[datetime, float] | None = None
        if not database.is_file:
            self._look()

    def now(self) -> datetime:
        """The present."""
        if self._known is None:
            return datetime.now(UTC).replace(tzinfo=None)
        at, seen_at = self._known
        passed = _passed() - seen_at
        if passed > _GOOD_FOR:
            self._look_soon()
        return at + timedelta(seconds=passed)

    def machine_ahead(self) -> float:
        """By how many seconds this machine's time of day is ahead of it; 0 for an SQLite file."""
        if self._known is None:
            return 0.0
        return (datetime.now(UTC).replace(tzinfo=None) - self.now()).total_seconds()

    def _look_soon(self) -> None:
        with self._lock:
            if self._looking:
                return
            self._looking = True
        threading.Thread(target=self._look_again, name="clock", daemon=True).start()

    def _look_again(self) -> None:
        try:
            self._look()
        except StillframeError as error:
            LOG.warning("the database's clock cannot be looked at: %s", error)
        finally:
            with self._lock:
                self._looking = False

    def _look(self) -> None:
        with self._database.reading() as connection:
            # The first question may have had to connect.
            utc_now(connection)
            asked = _passed()
            at = utc_now(connection)
        self._known = at, (asked + _passed()) / 2


def _passed() -> float:
    # Goes on while the machine is suspended, and is never set.
    return time.clock_gettime(time.CLOCK_BOOTTIME)
