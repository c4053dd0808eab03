"""Turns: one worker at a time changes a copy, and only while its operation is its own.

A worker can be suspended between any two of its steps, also between the question whether its claim still holds and the
change that it asked for. So it asks within its turn, which everybody who changes that copy needs: whoever is suspended
within one keeps the next worker waiting, and who comes back without one asks again.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from stillframe.domain.errors import BackendError
from stillframe.drivers.call import Call
from stillframe.posix import byte_locks

#: How long a worker waits for its turn, in seconds; a guest may be held still meanwhile.
TIMEOUT: Final = 5.0
_LOOK_EVERY: Final = 0.02
# Of the 128 bits of an id, as many as a position in a file has.
_SPARE_BITS: Final = 128 - 62


class Turns:
    """Safe to use from threads and from several processes; `file` is one for all copies, of which nothing is kept."""

    def __init__(self, file: Path, timeout: float = TIMEOUT) -> None:
        self._file = file
        self._timeout = timeout

    @contextmanager
    def turn(self, call: Call, copy_id: str) -> Iterator[None]:
        """Around a change of a copy.

        Raises what `Call.check` raises, and `BackendError` if another worker does not come to the end of its turn.
        """
        fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._wait(call, fd, copy_id)
            call.check()
            yield
        finally:
            os.close(fd)

    def _wait(self, call: Call, fd: int, copy_id: str) -> None:
        until = time.monotonic() + self._timeout
        while True:
            try:
                byte_locks.lock(fd, byte_locks.ALONE, uuid.UUID(copy_id).int >> _SPARE_BITS, 1)
            except BlockingIOError:
                call.check()
                if time.monotonic() > until:
                    raise BackendError(
                        f"Another worker has been changing the copy {copy_id} for {self._timeout:g} s and does not "
                        "come to an end; it may be suspended: let it go on, or end it."
                    ) from None
                time.sleep(_LOOK_EVERY)
            else:
                return
