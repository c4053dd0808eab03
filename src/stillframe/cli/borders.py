"""Where errors of the service's own parts become the program's."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.domain.errors import InvalidInput, StillframeError, Unavailable
from stillframe.store.border import words

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def usable_settings() -> Iterator[None]:
    """What is wrong with a setting is wrong with the use of the program."""
    try:
        yield
    except InvalidInput as error:
        raise CommandFailed(ExitCode.USAGE, error.message) from None


@contextmanager
def answering_database() -> Iterator[None]:
    """A database that does not answer may do so later."""
    try:
        yield
    except (SQLAlchemyError, Unavailable) as error:
        raise CommandFailed(ExitCode.UNAVAILABLE, f"the database cannot be used: {reason(error)}") from None


def reason(error: BaseException) -> str:
    """What the database itself said about what went wrong, where it did."""
    return (error.detail if isinstance(error, StillframeError) else words(error)) or str(error)
