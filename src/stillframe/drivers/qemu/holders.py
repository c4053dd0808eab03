"""Who holds a guest still: locks that end with their process at the latest.

A process that was stopped in the middle keeps its locks, and must not keep the others from theirs: they are not alone
then, and what it does to the guest when it comes back has to be made good.
"""

from __future__ import annotations

import fcntl
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from stillframe.drivers.image_files.error_translation import translated
from stillframe.drivers.image_files.files import Files

_TURN: Final = "turn"
_HOLDER: Final = "holder"
_AGAIN_SECONDS: Final = 0.05


class Holders:
    """The locks of all instances, below one folder; `seconds` bounds the wait for another process."""

    def __init__(self, folder: Path, files: Files, seconds: float) -> None:
        self._folder = folder
        self._files = files
        self._seconds = seconds

    @contextmanager
    def turn(self, instance_id: str, seconds: float | None = None) -> Iterator[bool]:
        """The turn of one process at a time to begin with a guest; whether it came within the time."""
        with self._file(instance_id, _TURN) as file:
            yield _lock(file, fcntl.LOCK_EX, self._seconds if seconds is None else seconds)

    @contextmanager
    def one_more(self, instance_id: str) -> Iterator[bool]:
        """Be one who holds the guest; whether there is no other, once those had the time who are about to end."""
        with self._file(instance_id, _HOLDER) as file:
            alone = _lock(file, fcntl.LOCK_EX, self._seconds)
            # Whoever only looks has it for a moment.
            _lock(file, fcntl.LOCK_SH, math.inf)
            yield alone

    def any(self, instance_id: str) -> bool:
        """Whether a process that lives holds the guest."""
        with self._file(instance_id, _HOLDER) as file:
            return not _lock(file, fcntl.LOCK_EX, 0.0)

    @contextmanager
    def _file(self, instance_id: str, what: str) -> Iterator[int]:
        with translated("preparing the folder of the locks"):
            self._files.make_folder(self._folder)
            path = self._folder / f"{instance_id}.{what}"
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            yield file
        finally:
            os.close(file)


def _lock(file: int, kind: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(_AGAIN_SECONDS)
        else:
            return True
