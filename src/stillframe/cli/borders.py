"""Where errors of the service's own parts become the program's."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.domain.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def usable_settings() -> Iterator[None]:
    """What is wrong with a setting is wrong with the use of the program."""
    try:
        yield
    except InvalidInput as error:
        raise CommandFailed(ExitCode.USAGE, error.message) from error


@contextmanager
def answering_database() -> Iterator[None]:
    """A database that does not answer may do so later."""
    try:
        yield
    except (SQLAlchemyError, Unavailable) as error:
        raise CommandFailed(ExitCode.UNAVAILABLE, f"the database cannot be used: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """The database's own words for what went wrong: SQLAlchemy's have the statement in them."""
    cause = error if isinstance(error, SQLAlchemyError) or error.__cause__ is None else error.__cause__
    return " ".join(str(getattr(cause, "orig", None) or error).split())
