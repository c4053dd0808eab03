"""The right to work on the operations of a database that several processes share: one of the server's own locks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from stillframe.domain.errors import Conflict, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

# "stillfr" in ASCII; PostgreSQL's advisory locks are numbers, and count for one database.
_POSTGRESQL_KEY: Final = 0x7374696C6C6672
# MariaDB's locks count for the whole server, and their names have at most 64 characters.
_MARIADB_NAME: Final = "CONCAT('stillframe-', MD5(DATABASE()))"

_TAKE: Final = {
    "postgresql": "SELECT pg_try_advisory_lock(:key)",
    "mysql": f"SELECT GET_LOCK({_MARIADB_NAME}, 0)",
}
# On another connection than the one that took it neither is true.
_HELD: Final = {
    "postgresql": "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() "
    "AND granted AND (CAST(classid AS bigint) << 32 | CAST(objid AS bigint)) = :key)",
    "mysql": f"SELECT IS_USED_LOCK({_MARIADB_NAME}) = CONNECTION_ID()",
}
_LOOK_EVERY: Final = 5.0


class WorkerLock:
    """Held by a connection of its own; the server takes it back when that connection ends, however it ends."""

    def __init__(self, engine: sa.Engine, *, look_every: float = _LOOK_EVERY) -> None:
        self._engine = engine
        self._look_every = look_every
        self._kind = "mysql" if engine.dialect.name == "mariadb" else engine.dialect.name
        self._connection: sa.Connection | None = None
        self._looked_at = 0.0

    def take(self) -> None:
        """Raises `Conflict` if another process holds it, `Unavailable` if the server does not answer."""
        try:
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            taken = connection.execute(self._statement(_TAKE)).scalar()
        except SQLAlchemyError as error:
            raise Unavailable(f"the database does not answer: {_reason(error)}") from error
        if not taken:
            connection.close()
            raise Conflict("another stillframe already works on this database; one at a time can")
        self._connection = connection
        self._looked_at = time.monotonic()

    def check(self) -> None:
        """Raises `Unavailable` if the lock may be lost; asks the server only every few seconds."""
        if self._connection is None:
            raise Unavailable("the lock of the database is not held")
        if time.monotonic() - self._looked_at < self._look_every:
            return
        try:
            held = self._connection.execute(self._statement(_HELD)).scalar()
        except SQLAlchemyError as error:
            raise Unavailable(f"the connection that held the lock of the database is lost: {_reason(error)}") from error
        if not held:
            raise Unavailable("the lock of the database is lost: its connection was renewed by the server")
        self._looked_at = time.monotonic()

    def _statement(self, statements: Mapping[str, str]) -> sa.TextClause:
        statement = sa.text(statements[self._kind])
        return statement.bindparams(key=_POSTGRESQL_KEY) if self._kind == "postgresql" else statement

    def release(self) -> None:
        """Give it back by ending its connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()


def _reason(error: SQLAlchemyError) -> str:
    # The driver's own words: SQLAlchemy's would add the statement, and a connection's parameters are no one's business.
    return " ".join(str(getattr(error, "orig", None) or type(error).__name__).split())
