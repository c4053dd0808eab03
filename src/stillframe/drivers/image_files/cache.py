"""Small files that are looked at often: each is read again only when it has changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final, Generic, TypeVar

T = TypeVar("T")

# Two changes within one tick of the kernel's clock have the same time; what is older than this has ticked on.
_YOUNG_SECONDS: Final = 1.0


class Cache(Generic[T]):
    """What `read` made of a file, for the `most` files that were asked for last; a change of a file counts at once."""

    def __init__(self, read: Callable[[Path], T], most: int) -> None:
        self._read = read
        self._kept = lru_cache(most)(lambda path, _stamp: read(path))

    def get(self, path: Path) -> T:
        """What `read` makes of the file as it is now; raises what `read` raises."""
        try:
            found = path.stat()
        except OSError:
            # Reading it says better what is wrong with it.
            return self._read(path)
        if time.time() - found.st_ctime < _YOUNG_SECONDS:
            return self._read(path)
        return self._kept(path, (found.st_ctime_ns, found.st_ino, found.st_size))
