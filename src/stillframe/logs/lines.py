"""Records of a log as lines of text that nobody but the program can begin."""

from __future__ import annotations

import copy
import logging
import traceback
from typing import Any

from stillframe.domain.printable import printable


def use_lines() -> None:
    """Have what writes text for the root logger, in the form that the library itself knows, write lines instead."""
    for handler in logging.getLogger().handlers:
        plain = handler.formatter
        if plain is None:
            handler.setFormatter(Lines())
        elif type(plain) is logging.Formatter:
            handler.setFormatter(Lines(plain._fmt, plain.datefmt))  # noqa: SLF001  # it keeps them nowhere else


class Lines(logging.Formatter):
    """One line for each record, whatever strangers have put into it.

    A traceback has more of them. They are the program's own: what the exceptions say stays within their lines.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the library's name
        """See `logging.Formatter`."""
        return super().formatMessage(clean(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802  # the library's name
        """See `logging.Formatter`."""
        return described(ei)


def clean(record: logging.LogRecord) -> logging.LogRecord:
    """A record with no text in it that would not stay within its line."""
    cleaned = copy.copy(record)
    for name, value in vars(record).items():
        # The colours are oslo.log's own.
        if isinstance(value, str) and name not in ("color", "reset_color"):
            setattr(cleaned, name, printable(value))
    return cleaned


def described(ei: Any) -> str:
    """The traceback of an exception (as `sys.exc_info` gives it), and of those behind it."""
    told = traceback.TracebackException(*ei)
    _silence(told)
    return "".join(told.format()).rstrip("\n")


def _silence(told: traceback.TracebackException) -> None:
    """Make what an exception says, and those behind it, one line each."""
    told._str = printable(str(told))  # type: ignore[attr-defined]  # noqa: SLF001  # there is no other way in
    told.__notes__ = [printable(str(note)) for note in getattr(told, "__notes__", None) or ()]
    for other in (told.__cause__, told.__context__, *(told.exceptions or ())):
        if other is not None:
            _silence(other)
