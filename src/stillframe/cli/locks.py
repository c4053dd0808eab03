"""One engine at a time: two would work on the same operations, and on the same volumes."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from stillframe import private
from stillframe.cli.exit_codes import CommandFailed, ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FILE: Final = "engine.lock"


@contextmanager
def folder_lock(state_dir: Path) -> Iterator[None]:
    """Hold the state folder; raises `CommandFailed` if another process does."""
    try:
        private.make_folder(state_dir)
        file = os.open(state_dir / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CommandFailed(ExitCode.USAGE, f"the state_dir {state_dir} cannot be used: {error.strerror}") from None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise CommandFailed(
                ExitCode.REFUSED,
                f"another stillframe works on {state_dir} already (process {holder}); stop it or set another",
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(file)
