"""What the fuzz suites bound is noticed when it is exceeded."""

from __future__ import annotations

import resource
import time

import pytest

from tests.fuzz.cases import bounded


def most() -> int:
    """Bytes beyond all that this process has had."""
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) + (128 << 20)


def test_memory_that_nobody_should_take_is_noticed() -> None:
    # The peak is the process's: this has to be more than other tests have had before.
    with pytest.raises(AssertionError), bounded(120.0):
        assert bytearray(b"x") * most()


def test_time_that_nobody_should_take_is_noticed() -> None:
    with pytest.raises(AssertionError), bounded(0.01):
        time.sleep(0.02)
