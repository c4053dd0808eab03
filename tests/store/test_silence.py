"""What a log tells of a database that does not answer."""

from __future__ import annotations

import logging

import pytest

from stillframe.domain.errors import Unavailable
from stillframe.store.error_translation import SILENT
from stillframe.store.silence import OnceAMinute


@pytest.mark.parametrize("seconds", [0, 59.9])
def test_what_is_left_out_is_counted(seconds: float) -> None:
    clock = [0.0]
    seldom = OnceAMinute(lambda: clock[0])

    def record(message: str, error: Exception | None = None) -> logging.LogRecord:
        exc_info = (type(error), error, None) if error is not None else None
        return logging.LogRecord("x", logging.WARNING, "x", 1, message, (), exc_info)

    first, other = record("the taker tries again: " + SILENT), record("something else")
    assert seldom.filter(first)
    assert seldom.filter(first)
    assert seldom.filter(other)
    clock[0] = seconds
    assert not seldom.filter(record("it broke off", Unavailable(SILENT)))
    assert not seldom.filter(record(SILENT))
    clock[0] = 60.0
    last = record("it broke off", Unavailable(SILENT))
    assert seldom.filter(last)
    assert last.getMessage().endswith("; 2 more lines about it were left out")
    assert last.exc_info is None
