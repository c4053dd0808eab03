"""A database that does not answer, in the log: one line a minute, instead of one for each thing that meets it."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from stillframe.domain.errors import Unavailable
from stillframe.store.error_translation import SILENT, is_silence, words

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS: Final = 60.0
_DECIDED: Final = "stillframe_decided"


class OnceAMinute(logging.Filter):
    """Lets what says that the database does not answer through once a minute, in one line.

    That is what our own parts say, and what SQLAlchemy and TaskFlow say by themselves, with a traceback that tells
    nobody more than the reason does.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._lock = threading.Lock()
        self._told_at: float | None = None
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter`."""
        # A record comes once for each handler, and all of them decide alike.
        decided: bool | None = getattr(record, _DECIDED, None)
        if decided is None:
            decided = self._decide(record)
            setattr(record, _DECIDED, decided)
        return decided

    def _decide(self, record: logging.LogRecord) -> bool:
        reason = _reason(record)
        if reason is None:
            return True
        with self._lock:
            if self._told_at is not None and self._now() - self._told_at < _SECONDS:
                self._left_out += 1
                return False
            self._told_at, left_out, self._left_out = self._now(), self._left_out, 0
        record.levelno, record.levelname = logging.ERROR, logging.getLevelName(logging.ERROR)
        more = f"; {left_out} more lines about it were left out" if left_out else ""
        record.msg, record.args = "%s%s", (reason, more)
        record.exc_info = record.exc_text = record.stack_info = None
        return True


def _reason(record: logging.LogRecord) -> str | None:
    """What a record says about a database that does not answer; None for all other records."""
    error = record.exc_info[1] if record.exc_info else None
    while error is not None:
        if is_silence(error):
            return f"{record.getMessage()}: {SILENT} ({_words(error)})"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    message = record.getMessage()
    return message if SILENT in message else None


def _words(error: BaseException) -> str:
    return error.detail if isinstance(error, Unavailable) else words(error)
