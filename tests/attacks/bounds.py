"""What an attacker's answer may cost whoever asked for it, and what may be said of it."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from stillframe.domain.errors import StillframeError

#: What a client is told to wait for an answer, and by when it has to be back however busy the machine is.
TIMEOUT: Final = 0.5
BOUND: Final = 15.0
_MOST_MEMORY: Final = 200 << 20
_LONGEST: Final = 1500


@contextmanager
def failing(*kinds: type[StillframeError], secret: str) -> Iterator[None]:
    """What is done in the block fails by one of these errors, soon and in little memory, and tells no secret."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(kinds) as told:
            yield
        _size, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < BOUND
    assert peak < _MOST_MEMORY
    assert told.value.__cause__ is None
    assert told.value.message.isprintable()
    assert len(told.value.message) < _LONGEST
    assert secret not in told.value.message
