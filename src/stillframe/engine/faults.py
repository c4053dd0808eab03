"""What went wrong, in the error tree's codes, also when all that is left of an exception is its record."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Final

from stillframe.domain import errors
from stillframe.domain.errors import StillframeError

LOG = logging.getLogger(__name__)

_UNEXPECTED: Final = "An unexpected error; the service's log has its details under this task's id."


def storable(error: BaseException, what: str) -> StillframeError:
    """The same as an error that says all it has to say in its message and its code, without cause or traceback.

    What is not of our tree is our mistake and goes to the log, with `what` was being done; so does what the platform
    said that no user is told.
    """
    if not isinstance(error, StillframeError):
        LOG.error("%s broke off", what, exc_info=error)
        return StillframeError(_UNEXPECTED)
    expected = isinstance(error, errors.Superseded)
    LOG.log(logging.INFO if expected else logging.WARNING, "%s failed: %s", what, error.in_full())
    public: type[StillframeError] = next(k for k in type(error).__mro__ if k.__module__ == errors.__name__)
    return public(error.message)


def fault_of(error: Exception | None, detail: Any) -> tuple[str, str]:
    """Code and message of an error, or else of the first failure in a recorded flow."""
    if error is not None:
        return _described(error)
    atoms = list(detail or ())
    # Why it failed comes before why it could not be undone.
    for failure in (*(atom.failure for atom in atoms), *(atom.revert_failure for atom in atoms)):
        if failure is None:
            continue
        if failure.exception is not None:
            return _described(failure.exception)
        # After a restart only names and texts are left of the exception.
        name = next(iter(failure), "").rpartition(".")[2]
        codes = {kind.__name__: kind.code for kind in _tree(StillframeError)}
        code = codes.get(name, StillframeError.code)
        return code, failure.exception_str if name in codes else _UNEXPECTED
    return StillframeError.code, _UNEXPECTED


def _described(error: BaseException) -> tuple[str, str]:
    if isinstance(error, StillframeError):
        return error.code, error.message
    return StillframeError.code, _UNEXPECTED


def _tree(kind: type[StillframeError]) -> Iterator[type[StillframeError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)
