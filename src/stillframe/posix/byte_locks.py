"""Locks on bytes of an open file that belong to the opening, not to the process (fcntl(2), F_OFD_SETLK)."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

_FLOCK: Final = "hhqqi4x"

#: What may be asked for: to share bytes, to have them alone, to let go of them.
SHARED: Final = fcntl.F_RDLCK
ALONE: Final = fcntl.F_WRLCK
FREE: Final = fcntl.F_UNLCK


def lock(fd: int, kind: int, start: int, length: int) -> None:
    """Lock bytes, or let go of them, without waiting; raises `BlockingIOError` if somebody else has them."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _asked(kind, start, length))


def is_locked(fd: int, start: int, length: int) -> bool:
    """Whether somebody else has a lock of any kind on one of these bytes."""
    found = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _asked(ALONE, start, length)))
    return bool(found[0] != FREE)


def _asked(kind: int, start: int, length: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, start, length, 0)
