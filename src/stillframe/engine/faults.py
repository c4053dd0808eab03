"""What went wrong, in the error tree's codes, also when all that is left of an exception is its record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stillframe.domain.errors import StillframeError


def fault_of(error: Exception | None, detail: Any) -> tuple[str, str]:
    """Code and message of an error, or else of the first failure in a recorded flow."""
    if error is not None:
        return _described(error)
    for atom in detail or ():
        failure = atom.failure or atom.revert_failure
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


_UNEXPECTED = "An unexpected error; the service's log has its details under this task's id."


def _described(error: BaseException) -> tuple[str, str]:
    if isinstance(error, StillframeError):
        return error.code, error.message
    return StillframeError.code, _UNEXPECTED


def _tree(kind: type[StillframeError]) -> Iterator[type[StillframeError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)
