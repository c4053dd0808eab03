"""Looking at image files wherever they lie: which file a name leads to, and whether a QEMU process writes to it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stillframe.drivers.image_files.alone import is_written_by_qemu


@contextmanager
def looked_at(image: Path) -> Iterator[int | None]:
    """A regular file, open for reading wherever it lies; None for anything else, of which nothing is opened."""
    looked = os.open(image, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(looked).st_mode):
            yield None
            return
        file = os.open(f"/proc/self/fd/{looked}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield file
        finally:
            os.close(file)
    finally:
        os.close(looked)


def same_file(first: Path, second: Path) -> bool:
    """Whether two names lead to one file; False if either leads nowhere."""
    try:
        return first.samefile(second)
    except OSError:
        return False


def any_written(paths: Sequence[Path]) -> bool:
    """Whether a QEMU process holds any of these images open for writing; missing ones are not. Raises `OSError`."""
    return any(path.exists() and _is_written(path) for path in paths)


def _is_written(image: Path) -> bool:
    # What is no regular file, none does.
    with looked_at(image) as file:
        return file is not None and is_written_by_qemu(file)
