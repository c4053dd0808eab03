"""Error translation: what SQLAlchemy and the drivers below it raise leaves the store as the error tree."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import sqlalchemy as sa
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from stillframe.domain.errors import Conflict, Damaged, InvalidInput, StillframeError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Method = TypeVar("Method", bound="Callable[..., Any]")


class UndoneError(Conflict):
    """The server undid the transaction so that another could go on; it may be made again at once."""


# PostgreSQL's SQLSTATEs and MariaDB's error numbers for a transaction that was undone so that another could go on.
_UNDONE: Final = frozenset({"40001", "40P01", 1213, 1020})

_BUSY: Final = (Conflict, "Another request was changing the same rows at the same moment; try again.")
#: What is said of a database that does not answer.
SILENT: Final = "The database does not answer at present."
_SILENT: Final = (Unavailable, SILENT)
_BY_CODE: Final[Mapping[object, tuple[type[StillframeError], str]]] = {
    **dict.fromkeys(_UNDONE, (UndoneError, _BUSY[1])),
    # The same for a transaction that waited too long for another.
    **dict.fromkeys(("55P03", 1205), _BUSY),
    # A table or a column is missing; SQLite and MariaDB report some of that as they report a lost connection.
    **dict.fromkeys(
        ("42P01", "42703", "SQLITE_ERROR", 1054, 1146),
        (StillframeError, "The database is not at this release's schema."),
    ),
    **dict.fromkeys(("XX001", "XX002", "SQLITE_CORRUPT", "SQLITE_NOTADB"), (Damaged, "The database is damaged.")),
    # A server that takes reads only, while another one is about to take its place.
    **dict.fromkeys(("25006", 1290), _SILENT),
}
_BY_KIND: Final[Sequence[tuple[type[sa.exc.SQLAlchemyError], tuple[type[StillframeError], str]]]] = (
    (sa.exc.IntegrityError, (Conflict, "It is there already, or what it refers to is gone.")),
    (sa.exc.DataError, (InvalidInput, "The request holds a value that cannot be stored.")),
    *((kind, _SILENT) for kind in (sa.exc.OperationalError, sa.exc.InterfaceError)),
    *((kind, _SILENT) for kind in (sa.exc.TimeoutError, sa.exc.DisconnectionError)),
)


@contextmanager
def translated() -> Iterator[None]:
    """Whatever the database raises within leaves as an error of our tree, with the database's words as its detail."""
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        raise _translate(error) from None
    except UnicodeEncodeError:
        raise InvalidInput("The request holds characters that cannot be stored; leave them out.") from None


_again: Final = retry(
    retry=retry_if_exception_type(UndoneError),
    stop=stop_after_attempt(10),
    wait=wait_random_exponential(multiplier=0.01, max=0.5),
    reraise=True,
)


def repeated(method: Method) -> Method:
    """For a method that is one transaction: it runs again where the server undid it so that another could go on."""
    return cast("Method", _again(method))


def _translate(error: sa.exc.SQLAlchemyError) -> StillframeError:
    """The error of our tree; statements and parameters are not in it, for they are not meant for users."""
    by_kind = (found for kind, found in _BY_KIND if isinstance(error, kind))
    fallback = (StillframeError, "The database refused a statement of ours.")
    if isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated:
        fallback = _SILENT
    kind, message = _BY_CODE.get(_code(error)) or next(by_kind, fallback)
    ours = kind(message)
    ours.detail = words(error)
    return ours


def is_silence(error: BaseException) -> bool:
    """Whether an error, of ours or of SQLAlchemy's, says that the database does not answer."""
    if isinstance(error, sa.exc.SQLAlchemyError):
        error = _translate(error)
    return isinstance(error, Unavailable) and error.message == SILENT


def words(error: BaseException) -> str:
    """What the database itself said, in one line: SQLAlchemy's own text has the statement in it."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


def _code(error: BaseException | None) -> object:
    """MariaDB's error number, PostgreSQL's SQLSTATE or the name of SQLite's error, or None."""
    original = getattr(error, "orig", None)
    number = next(iter(getattr(original, "args", ())), None)
    # The number first: newer drivers of MariaDB give an SQLSTATE too, which says less.
    candidates = (number, getattr(original, "sqlstate", None), getattr(original, "sqlite_errorname", None))
    return next((code for code in candidates if code in _BY_CODE), None)
