"""Whether anybody on this machine has a file open for writing: a loop device, a mount, a program of any kind."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from pathlib import Path
from typing import Final

from stillframe.domain.errors import Refused
from stillframe.drivers.local.opening import File

_LOOPS: Final = Path("/sys/block")
_HELD: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})
# Not ours to lease, or a file system that has no leases.
_CANNOT_TELL: Final = frozenset({errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP})


def require_no_writer(file: File) -> None:
    """Raise `Refused` if anybody has the file, which is open for reading here, open for writing."""
    if _is_leased_out(file) or _is_loop(file):
        raise Refused(
            "The disk's file is open for writing on this machine, by a program or as a loop device that may be "
            "mounted; end that first (fuser and losetup -a name it), for it would go on in a file that nobody sees."
        )


def _is_leased_out(file: File) -> bool:
    # The kernel grants a lease for reading only where nobody writes, and it knows of everybody (fcntl(2), F_SETLEASE).
    try:
        # Whoever opens the file within the lease's moment has the kernel tell us; nothing is to come of it.
        fcntl.fcntl(file.fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file.fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file.fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as problem:
        if problem.errno in _HELD:
            return True
        if problem.errno in _CANNOT_TELL:
            return False
        raise
    return False


def _is_loop(file: File) -> bool:
    for told in _LOOPS.glob("loop*/loop/backing_file"):
        try:
            found = Path(os.fsdecode(told.read_bytes().rstrip(b"\n"))).stat()
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (file.found.st_dev, file.found.st_ino):
            return True
    return False
