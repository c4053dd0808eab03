"""One engine at a time: two would work on the same operations, and on the same volumes."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.posix import private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Also of earlier releases, whose workers hold it alone whatever the database: those of this one start beside them.
_ENGINE: Final = "engine.lock"
_WORKERS: Final = "workers.lock"
_LONGEST: Final = 32


@contextmanager
def folder_lock(state_dir: Path, *, alone: bool) -> Iterator[None]:
    """Hold the state folder, alone or with others that do not; raises `CommandFailed` if that cannot be."""
    with ExitStack() as stack:
        for name in (_ENGINE, _WORKERS) if alone else (_WORKERS,):
            stack.enter_context(_held(state_dir, name, alone=alone))
        yield


@contextmanager
def _held(state_dir: Path, name: str, *, alone: bool) -> Iterator[None]:
    try:
        private.make_folder(state_dir)
        file = os.open(state_dir / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if not alone:
            # Nobody who needs it for himself can use it either.
            yield
            return
        raise CommandFailed(ExitCode.USAGE, f"the state_dir {state_dir} cannot be used: {error.strerror}") from None
    try:
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, _LONGEST, 0).decode("ascii", "replace").strip() or "unknown"
            raise CommandFailed(
                ExitCode.REFUSED,
                f"another stillframe works on {state_dir} already (process {holder}); stop it or set another",
            ) from None
        # Of those that hold it together one is named: the last.
        os.pwrite(file, f"{os.getpid()}\n".ljust(_LONGEST).encode(), 0)
        yield
    finally:
        os.close(file)
