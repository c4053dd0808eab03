"""Whether this process can do its work now: told at once, also while the database leaves a question unanswered."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from stillframe.domain.errors import StillframeError
from stillframe.store.error_translation import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable

LOG = logging.getLogger(__name__)

_FRESH: Final = 1.0
_TIMEOUT: Final = 3.0
_AT_ONCE: Final = 0.5
_LATELY: Final = 10.0
_ENDING: Final = "This process is ending."


class Readiness:
    """What the last look at the database said, of a second ago at most; safe to use from threads.

    `look` raises `StillframeError` if the database cannot be worked with. One look is under way at a time, in a thread
    of its own; one that takes more than three seconds is an answer, too.
    """

    def __init__(self, look: Callable[[], None], now: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._now = now
        self._lock = threading.Lock()
        self._looking: threading.Thread | None = None
        self._began_at = float("-inf")
        self._problem: str | None = SILENT
        self._asked_at = float("-inf")
        self._ending = False

    def end(self) -> bool:
        """Be ready no more; whether somebody has asked in the last ten seconds, and will stop sending requests."""
        with self._lock:
            self._ending = True
            return self._now() - self._asked_at < _LATELY

    def problem(self) -> str | None:
        """Why this process is not ready, or None."""
        with self._lock:
            self._asked_at = self._now()
            if self._ending:
                return _ENDING
        return self._of_the_database()

    def answers(self) -> bool:
        """Whether the database answers."""
        return self._of_the_database() is None

    def _of_the_database(self) -> str | None:
        with self._lock:
            if self._looking is None and self._now() - self._began_at >= _FRESH:
                self._began_at = self._now()
                self._looking = threading.Thread(target=self._run, name="readiness", daemon=True)
                self._looking.start()
            looking = self._looking
        if looking is not None:
            looking.join(_AT_ONCE)
        with self._lock:
            hangs = self._looking is not None and self._now() - self._began_at > _TIMEOUT
            return SILENT if hangs else self._problem

    def _run(self) -> None:
        problem: str | None = None
        try:
            self._look()
        except StillframeError as error:
            problem = error.message
        except Exception:
            LOG.exception("nobody knows whether the database can be worked with")
            problem = "Nobody knows whether the database can be worked with."
        with self._lock:
            self._problem, self._looking = problem, None
