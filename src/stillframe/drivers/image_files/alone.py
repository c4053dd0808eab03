"""Having an image file for oneself: QEMU's own locks keep QEMU out, and a lease tells of everybody else.

A lease for reading (fcntl(2), F_SETLEASE) is given only if nobody has the file open for writing, and its holder learns
of every open for writing that comes later, of loop devices too; whoever opens waits until the lease is given back. Not
all file systems have leases, and none is given for the file of another user without CAP_LEASE. The file's times and
size, before and after, are the second line.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from stillframe.domain.errors import Refused
from stillframe.drivers.image_files import opening
from stillframe.posix import byte_locks

# Bytes that QEMU locks in its images (block/file-posix.c): 100 and on for what it does, 200 and on for what it does not
# let others do. Of these, 0 is to read what stays as it is, 1 to write, 3 to resize.
_READS: Final = 100
_WRITERS: Final = (101, 103)
_KEEPS_OUT: Final = (201, 203)
_ALL: Final = (100, 200)  # the first of all these bytes, and how many they are
_LOOPS: Final = Path("/sys/block")
_SET_SIGNAL: Final = 10  # F_SETSIG, asm-generic/fcntl.h
_NO_LEASES: Final = frozenset({errno.EINVAL, errno.EACCES, errno.EPERM, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS})

_IN_QEMU: Final = "The disk is open for writing in a QEMU process; shut the instance down first."
_NOT_IN_QEMU: Final = (
    "The running instance does not have this file open: another file has taken its place since the instance was "
    "started, or the instance waits for a migration, or does without locks (locking=off). Put the file back, or start "
    "the instance anew."
)
_ELSEWHERE: Final = (
    "The disk's file is open for writing on this machine, by a program or as a loop device that may be mounted; end "
    "that first (fuser and losetup -a name it), for it would go on in a file that nobody sees."
)
_MEANWHILE: Final = (
    "Another program opened or changed the disk while it was worked on, so that nobody knows what the outcome holds; "
    "nothing was kept of it. Repeat it when that program is done."
)


class Alone:
    """That nobody else writes to an open file; `check` and `finish` raise `Refused` when somebody has."""

    def __init__(self, file: opening.File, *, leased: bool) -> None:
        self._file = file
        self._leased = leased
        self._seen = os.fstat(file.fd)

    def check(self) -> None:
        """Look, cheaply, whether somebody has asked to write."""
        if self._leased and fcntl.fcntl(self._file.fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
            raise Refused(_MEANWHILE)

    def finish(self) -> None:
        """Look whether anything was written since the beginning, and whether the name still leads to this file."""
        self.check()
        if not self._is_named():
            raise Refused(_MEANWHILE)
        now, then = os.fstat(self._file.fd), self._seen
        if (now.st_mtime_ns, now.st_size) != (then.st_mtime_ns, then.st_size):
            raise Refused(_MEANWHILE)
        # The second name that a safety copy is changes it too.
        if now.st_ctime_ns != then.st_ctime_ns and now.st_nlink == then.st_nlink:
            raise Refused(_MEANWHILE)

    def _is_named(self) -> bool:
        try:
            there = os.stat(self._file.name, dir_fd=self._file.folder.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, self._seen)


@contextmanager
def alone(file: opening.File) -> Iterator[Alone]:
    """Keep QEMU from opening the file for writing, and notice who else does; raises `Refused` if somebody has it so."""
    for byte in (_READS, *_KEEPS_OUT):
        byte_locks.lock(file.fd, byte_locks.SHARED, byte, 1)
    try:
        _require_no_writer(file)
        leased = _lease(file)
        try:
            yield Alone(file, leased=leased)
        finally:
            # Before the lease: a QEMU process that waits for that goes on at once, and gives up if it finds a lock.
            _unlock(file)
            if leased:
                fcntl.fcntl(file.fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    finally:
        _unlock(file)


def require_no_writer(file: opening.File) -> None:
    """Raises `Refused` if somebody has the file open for writing now; keeps nobody out."""
    _require_no_writer(file)
    if _lease(file):
        fcntl.fcntl(file.fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def require_open_in_qemu(file: opening.File) -> None:
    """Raises `Refused` if no QEMU process has this very file open, whatever its name leads to by now."""
    if not byte_locks.is_locked(file.fd, *_ALL):
        raise Refused(_NOT_IN_QEMU)


def is_written_by_qemu(fd: int) -> bool:
    """Whether another QEMU process has the open file open for writing."""
    return any(byte_locks.is_locked(fd, byte, 1) for byte in _WRITERS)


def _require_no_writer(file: opening.File) -> None:
    if is_written_by_qemu(file.fd):
        raise Refused(_IN_QEMU)


def _unlock(file: opening.File) -> None:
    byte_locks.lock(file.fd, byte_locks.FREE, *_ALL)


def _require_no_loop(file: opening.File) -> None:
    # For where there are no leases.
    for told in _LOOPS.glob("loop*/loop/backing_file"):
        try:
            found = Path(os.fsdecode(told.read_bytes().rstrip(b"\n"))).stat()
        except OSError:
            continue
        if os.path.samestat(found, file.found):
            raise Refused(_ELSEWHERE)


def _lease(file: opening.File) -> bool:
    try:
        # The signal that is sent by default would end the process; this one is ignored, and the lease is asked.
        fcntl.fcntl(file.fd, _SET_SIGNAL, signal.SIGURG)
        fcntl.fcntl(file.fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as problem:
        if problem.errno == errno.EAGAIN:
            raise Refused(_ELSEWHERE) from None
        if problem.errno in _NO_LEASES:
            _require_no_loop(file)
            return False
        raise
    return True
