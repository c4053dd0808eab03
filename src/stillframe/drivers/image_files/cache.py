"""Small files that are looked at often: each is read again only when it has changed."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

T = TypeVar("T")

# Two changes within one tick of the file system's clock have the same time. That clock may be another machine's, and
# its times are compared with each other only: what has looked the same for longer has ticked on.
_YOUNG_SECONDS: Final = 1.0


@dataclass(slots=True)
class _Seen(Generic[T]):
    """One state of a file, since when it was seen, and what `read` made of it once that had ticked on."""

    stamp: tuple[int, ...]
    since: float
    made: tuple[T] | None = None


class Cache(Generic[T]):
    """What `read` made of a file, for the `most` files that were asked for last; a change of a file counts at once.

    `now` in seconds, of a clock that nobody sets.
    """

    def __init__(self, read: Callable[[Path], T], most: int, now: Callable[[], float] = time.monotonic) -> None:
        self._read, self._most, self._now = read, most, now
        self._lock = threading.Lock()
        self._seen: OrderedDict[Path, _Seen[T]] = OrderedDict()

    def get(self, path: Path) -> T:
        """What `read` makes of the file as it is now; raises what `read` raises."""
        try:
            found = path.stat()
        except OSError:
            # Reading it says better what is wrong with it.
            return self._read(path)
        begun, stamp = self._now(), (found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)
        seen = self._state(path, stamp, begun)
        if seen.made is not None:
            return seen.made[0]
        value = self._read(path)
        if begun - seen.since >= _YOUNG_SECONDS:
            seen.made = (value,)
        return value

    def _state(self, path: Path, stamp: tuple[int, ...], now: float) -> _Seen[T]:
        with self._lock:
            seen = self._seen.get(path)
            if seen is None or seen.stamp != stamp:
                seen = self._seen[path] = _Seen(stamp, now)
                if len(self._seen) > self._most:
                    self._seen.popitem(last=False)
            self._seen.move_to_end(path)
            return seen
