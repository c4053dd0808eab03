"""One engine at a time: two would work on the same operations, and on the same volumes."""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.domain.errors import Conflict, Unavailable
from stillframe.store.worker_lock import WorkerLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stillframe.store.database import Database

LOG = logging.getLogger(__name__)

_FILE: Final = "engine.lock"


@contextmanager
def folder_lock(state_dir: Path) -> Iterator[None]:
    """Hold the state folder; raises `CommandFailed` if another process does."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        file = os.open(state_dir / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CommandFailed(ExitCode.USAGE, f"the state_dir {state_dir} cannot be used: {error.strerror}") from error
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


@contextmanager
def database_lock(database: Database) -> Iterator[Callable[[], None]]:
    """Hold a server's database, and yield a check that ends the process once that is no longer sure.

    An SQLite file has no such lock: its state folder has one.
    """
    if database.writer.dialect.name == "sqlite":
        yield lambda: None
        return
    lock = WorkerLock(database.writer)
    try:
        lock.take()
    except Conflict as error:
        raise CommandFailed(ExitCode.REFUSED, error.message) from error

    def check() -> None:
        try:
            lock.check()
        except Unavailable as error:
            LOG.critical("%s; another process may work on it by now, so this one ends at once", error.message)
            logging.shutdown()
            # Threads cannot be stopped in the middle of a volume. Whoever holds the lock goes on as after a kill.
            os._exit(ExitCode.UNAVAILABLE)

    try:
        yield check
    finally:
        lock.release()
