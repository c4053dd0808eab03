"""Error translation: what the operating system and QEMU's programs raise leaves as an error of the tree."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from stillframe.domain.errors import BackendError, OutOfSpace, StillframeError, Unavailable

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_BUSY: Final = frozenset({errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT, errno.ENFILE, errno.EMFILE, errno.ENOMEM})


def translation(problem: OSError, doing: str) -> StillframeError:
    """The error of the tree that says what the operating system refused while `doing`."""
    where = f" ({str(problem.filename)!r})" if problem.filename else ""
    reason = f"{doing}: {problem.strerror or problem}{where}"
    if problem.errno in _FULL:
        return OutOfSpace(f"{reason}; make room on that file system and repeat")
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
