"""Where errors of the operating system and of QEMU's programs become errors of the tree."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from stillframe.domain.errors import BackendError, OutOfSpace, StillframeError, Unavailable

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_BUSY: Final = frozenset({errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT, errno.ENFILE, errno.EMFILE, errno.ENOMEM})


def translated(problem: OSError, doing: str) -> StillframeError:
    """The error of the tree that says what the operating system refused while `doing`."""
    where = f" ({str(problem.filename)!r})" if problem.filename else ""
    reason = f"{doing}: {problem.strerror or problem}{where}"
    if problem.errno in _FULL:
        return OutOfSpace(f"{reason}; make room on that file system and repeat")
    if problem.errno in _BUSY:
        return Unavailable(reason)
    return BackendError(reason)


@contextmanager
def border(doing: str) -> Iterator[None]:
    """Translate every `OSError` of the block; `doing` completes the sentence for the reader of the message."""
    try:
        yield
    except OSError as problem:
        raise translated(problem, doing) from None
