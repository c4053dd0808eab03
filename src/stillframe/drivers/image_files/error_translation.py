"""Error translation: what the operating system and QEMU's programs raise leaves as an error of the tree."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from stillframe.domain.errors import (
    BackendError,
    Damaged,
    Interrupted,
    NotSupported,
    OutOfSpace,
    Refused,
    StillframeError,
    Unavailable,
)

LOG = logging.getLogger(__name__)

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_BUSY: Final = frozenset({errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT, errno.ENFILE, errno.EMFILE, errno.ENOMEM})
# Nothing is broken, but the file is not where or what it was said to be.
_NOT_THERE: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ENXIO, errno.EROFS}
)
_READ_ONLY: Final = "lies on a file system that is mounted read-only; mount it for writing."


def translation(problem: OSError, doing: str) -> StillframeError:
    """The error of the tree that says what the operating system refused while `doing`."""
    where = f" ({str(problem.filename)!r})" if problem.filename else ""
    reason = f"{doing[0].upper()}{doing[1:]}: {problem.strerror or problem}{where}."
    if problem.errno in _FULL:
        return OutOfSpace(f"{reason} Make room on that file system and repeat.")
    if problem.errno in _BUSY:
        return Unavailable(reason)
    return BackendError(reason)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Translate every `OSError` of the block; `doing` completes the sentence for the reader of the message."""
    try:
        yield
    except OSError as problem:
        raise translation(problem, doing) from None


@contextmanager
def about(instance: str, disk: str, path: Path) -> Iterator[None]:
    """Have each error of the block say by names which disk it is about; what has a path in it goes to the log."""
    what = f"Disk '{disk}' of instance '{instance}'"
    try:
        yield
    except Interrupted:
        raise
    except OSError as problem:
        LOG.warning("%s: %r: %r", what, str(path), problem)
        kind = Refused if problem.errno in _NOT_THERE else type(translation(problem, what))
        said = os.strerror(problem.errno or errno.EIO)
        why = f"cannot be looked at: {said}; put it back, or correct which file is attached."
        raise kind(f"{what} {_READ_ONLY if problem.errno == errno.EROFS else why}") from None
    except StillframeError as problem:
        LOG.warning("%s: %r: %s", what, str(path), problem.message)
        known = (NotSupported, Refused, Damaged, OutOfSpace, BackendError)
        kind = next((one for one in known if isinstance(problem, one)), type(problem))
        raise kind(f"{what}: {problem.message}") from None
