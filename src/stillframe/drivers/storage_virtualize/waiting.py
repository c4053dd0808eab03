"""Waiting for an array without missing the end of an operation."""

from __future__ import annotations

import time
from collections.abc import Callable

from stillframe.drivers.call import Call


def wait_until(call: Call, seconds: float, reached: Callable[[], bool]) -> None:
    """Look every `seconds` whether something is reached; raises what `call.check` raises in between."""
    while not reached():
        call.check()
        time.sleep(seconds)
        call.check()
