"""How the program ends, for scripts; the documentation's table is made from this one."""

from __future__ import annotations

from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from stillframe.domain import errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class ExitCode(IntEnum):
    """The exit codes; their meanings are in `MEANINGS`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    NOT_ALLOWED = 5
    UNAVAILABLE = 6
    HANGS = 75
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANINGS: Final[Mapping[ExitCode, str]] = {
    ExitCode.OK: "Done. With `--no-wait`: accepted.",
    ExitCode.FAILED: "The operation was carried out and failed, a check found something wrong, or an unexpected error.",
    ExitCode.USAGE: "The command line or the settings cannot be used.",
    ExitCode.NOT_FOUND: "There is no such thing, or it belongs to another project.",
    ExitCode.REFUSED: "The request was refused and nothing was changed: bad input, wrong state, or a conflict.",
    ExitCode.NOT_ALLOWED: "The credentials are missing or wrong, or the user's roles do not allow it.",
    ExitCode.UNAVAILABLE: "The service, its database or the platform behind does not answer; worth trying again.",
    ExitCode.HANGS: "A call to a platform hangs in this worker; it has handed its work on and is to be started anew.",
    ExitCode.INTERRUPTED: "Interrupted by Ctrl-C. What the service has accepted goes on.",
    ExitCode.BROKEN_PIPE: "The reader of the output has closed it.",
}

_BY_STATUS: Final[Mapping[int, ExitCode]] = {
    401: ExitCode.NOT_ALLOWED,
    403: ExitCode.NOT_ALLOWED,
    404: ExitCode.NOT_FOUND,
    500: ExitCode.FAILED,
    502: ExitCode.UNAVAILABLE,
    503: ExitCode.UNAVAILABLE,
    504: ExitCode.UNAVAILABLE,
}
_BY_ERROR: Final[Mapping[type[errors.StillframeError], ExitCode]] = {
    errors.InvalidInput: ExitCode.REFUSED,
    errors.Refused: ExitCode.REFUSED,
    errors.Conflict: ExitCode.REFUSED,
    errors.TooLarge: ExitCode.REFUSED,
    errors.Unauthorized: ExitCode.NOT_ALLOWED,
    errors.Forbidden: ExitCode.NOT_ALLOWED,
    errors.NotFound: ExitCode.NOT_FOUND,
    errors.Unavailable: ExitCode.UNAVAILABLE,
}
_FIRST_SERVER_ERROR: Final = 500


class CommandFailed(Exception):  # the name says what it is to the user
    """Why a command ends with another code than 0, in one line for the user."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(" ".join(message.split()))
        self.code = code


def of_status(status: int) -> ExitCode:
    """The exit code for a reply of the service."""
    other = ExitCode.FAILED if status >= _FIRST_SERVER_ERROR else ExitCode.REFUSED
    return _BY_STATUS.get(status, other)


def as_failure(error: Exception) -> CommandFailed:
    """What any error means to the user."""
    if isinstance(error, CommandFailed):
        return error
    if isinstance(error, errors.StillframeError):
        code = next((_BY_ERROR[kind] for kind in type(error).__mro__ if kind in _BY_ERROR), ExitCode.FAILED)
        return CommandFailed(code, error.message)
    if isinstance(error, OSError):
        return CommandFailed(ExitCode.FAILED, str(error))
    return CommandFailed(ExitCode.FAILED, f"unexpected {type(error).__name__}: {error} (--debug shows where)")


@contextmanager
def usable_settings() -> Iterator[None]:
    """What is wrong with a setting is wrong with the use of the program."""
    try:
        yield
    except errors.InvalidInput as error:
        raise CommandFailed(ExitCode.USAGE, error.message) from None
