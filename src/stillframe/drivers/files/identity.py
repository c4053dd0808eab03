"""Whether a file below an image still holds what it held: told by its content, whatever inode it has become.

Inode and time of change are hints: where they are the same, and nobody can set the latter, nothing has changed. Where
they are not, the content decides. So a file that was copied and put back with the same bytes counts as the same, and
one that was changed does not, whatever its times have been set to.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from stillframe.domain.errors import Refused
from stillframe.drivers.image_files import blocks
from stillframe.drivers.image_files.opening import File

_CHUNK: Final = 4 << 20
_ZEROES: Final = bytes(_CHUNK)
_DIGEST_BYTES: Final = 32
_KEPT: Final = 1024
# Two changes within one tick of the kernel's clock have the same time; what is older than this has ticked on.
_YOUNG_NS: Final = 1_000_000_000

_Stamp = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class BackingFile:
    """One file below a qcow2 image, as it was when it was recorded; any change of it changes the image above.

    `size` is in bytes. `ctime_ns` is None where the file had just been changed, and `digest` in records of releases
    that had none, and as long as a copy is being made: size and `mtime_ns` decide then.
    """

    path: str
    format: str
    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int | None = None
    digest: str | None = None

    @property
    def stamp(self) -> tuple[int, int, int]:
        """What tells, without a look at the content, one state of a file from another."""
        return self.inode, self.size, self.mtime_ns


class Digests:
    """Computes the digests of files, once for each state of a file; safe to use from threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[_Stamp, str] = OrderedDict()
        self._lock = threading.Lock()

    def record(self, file: File, form: str, tick: Callable[[], None]) -> BackingFile:
        """The file as it is now; raises `Refused` if it is written to meanwhile, `OSError`."""
        digest, found = self._digest(file, tick), os.fstat(file.fd)
        settled = None if _is_young(found) else found.st_ctime_ns
        return BackingFile(str(file.path), form, found.st_size, found.st_mtime_ns, found.st_ino, settled, digest)

    def is_same(self, file: File, recorded: BackingFile, tick: Callable[[], None] = lambda: None) -> bool:
        """Whether an open file holds what was recorded; raises as `record`."""
        found = os.fstat(file.fd)
        if found.st_size != recorded.size:
            return False
        if recorded.digest is None:
            return found.st_mtime_ns == recorded.mtime_ns
        if (found.st_ino, found.st_ctime_ns) == (recorded.inode, recorded.ctime_ns):
            return True
        return self._digest(file, tick) == recorded.digest

    def _digest(self, file: File, tick: Callable[[], None]) -> str:
        before = _stamp(os.fstat(file.fd))
        with self._lock:
            known = self._kept.get(before)
        if known is not None:
            return known
        digest = _digest(file.fd, tick)
        found = os.fstat(file.fd)
        if _stamp(found) != before:
            raise Refused("A backing file is being written to; wait for its end, for nothing above it holds still.")
        if not _is_young(found):
            with self._lock:
                self._kept[before] = digest
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return digest


def _stamp(found: os.stat_result) -> _Stamp:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _is_young(found: os.stat_result) -> bool:
    return time.time_ns() - found.st_ctime_ns < _YOUNG_NS


def _digest(fd: int, tick: Callable[[], None]) -> str:
    # Zeroes count by their absence: whether they are written or a hole is no difference in content.
    total = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    total.update(os.fstat(fd).st_size.to_bytes(8, "big"))
    for position in _written(fd):
        tick()
        chunk = os.pread(fd, _CHUNK, position)
        if chunk != _ZEROES[: len(chunk)]:
            total.update(position.to_bytes(8, "big"))
            total.update(hashlib.blake2b(chunk, digest_size=_DIGEST_BYTES).digest())
    return total.hexdigest()


def _written(fd: int) -> Iterator[int]:
    """Where the chunks begin in which there may be something else than a hole."""
    done = 0
    for start, end in blocks.extents(fd):
        first = max(done, start // _CHUNK * _CHUNK)
        yield from range(first, end, _CHUNK)
        done = max(done, -(-end // _CHUNK) * _CHUNK)
