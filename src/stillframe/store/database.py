"""Connections to the database, set up so that each of the three kinds keeps what it has acknowledged."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy import event

from stillframe.domain.errors import InvalidInput
from stillframe.posix import private
from stillframe.store.error_translation import translated
from stillframe.store.tables import WORKERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy.pool import ConnectionPoolEntry

# An execution option of ours, see `Database.books`.
_DURABLE: Final = "stillframe_durable"
# How long a process may be silent in the middle of a transaction.
_IDLE_SECONDS: Final = 15
_NO_URL: Final = (
    "is no URL of the form DIALECT+DRIVER://USER:PASSWORD@HOST:PORT/DATABASE; "
    "in the name and the password, write '@' as %40, ':' as %3A, '/' as %2F and '%' as %25"
)
# How long a server may be silent before its connection counts as lost; without limits a thread could wait for ever.
_TIMEOUTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "psycopg": {
        "connect_timeout": 10,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
        # A process that was suspended in the middle of a transaction must not hold up the others for longer.
        "options": f"-c idle_in_transaction_session_timeout={_IDLE_SECONDS}s",
    },
    "pymysql": {"connect_timeout": 10, "read_timeout": 300, "write_timeout": 300},
}


@dataclass(frozen=True, slots=True)
class Database:
    """Two engines on one database; on servers they are the same object.

    SQLite has one writer at a time. Giving `writer` a single connection makes threads queue for it, where several
    connections would poll its lock file and fail in the middle of a transaction that began with reading.
    """

    reader: sa.Engine
    writer: sa.Engine

    @property
    def is_file(self) -> bool:
        """Whether it is an SQLite file, which one process at a time works on."""
        return self.writer.dialect.name == "sqlite"

    @property
    def books(self) -> sa.Engine:
        """The writer for records that may be lost with the power, and then only down to the last durable transaction.

        SQLite's log is one file: making a transaction durable makes durable whatever was committed before it.
        """
        return self.writer.execution_options(**{_DURABLE: False})

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection to look with; all that goes wrong on it is of our error tree."""
        with translated(), self.reader.connect() as connection:
            yield connection

    @contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[sa.Connection]:
        """One transaction, committed at the end of the block, undone by an exception; errors as in `reading`.

        `Unavailable` says nothing about a transaction whose commit was on its way: it may have been made or not.
        One that is not `durable` may be lost with the power, see `books`.
        """
        with translated(), (self.writer if durable else self.books).begin() as connection:
            yield connection

    def require_answer(self) -> None:
        """Raises `Unavailable` unless the database answers, and a server takes changes too; changes nothing."""
        if self.is_file:
            with self.reading() as connection:
                connection.execute(sa.text("SELECT 1"))
            return
        nothing = sa.delete(WORKERS).where(sa.false())
        with self.writing(durable=False) as connection:
            connection.execute(nothing)

    def close(self) -> None:
        self.reader.dispose()
        self.writer.dispose()


def connect(url: str, *, sqlite_synchronous: str = "FULL", pool_size: int = 20) -> Database:
    """Open a database by its SQLAlchemy URL; an SQLite file's folder is made where it is missing.

    `sqlite_synchronous` is SQLite's pragma of that name: `NORMAL` survives a killed process, `FULL` a power loss too
    (https://www.sqlite.org/pragma.html#pragma_synchronous). Raises `InvalidInput` for a URL that cannot be used.
    """
    chosen = parsed(url)
    try:
        if chosen.get_backend_name() == "sqlite":
            return _sqlite(chosen, sqlite_synchronous, pool_size)
        return _server(chosen, pool_size)
    except (sa.exc.ArgumentError, ModuleNotFoundError, OSError) as error:
        raise InvalidInput(f"The database's URL cannot be used: {error}") from None


def parsed(url: str) -> sa.URL:
    """The parts of a URL; raises `InvalidInput`, without a word of the URL, for there is a password in it."""
    try:
        found = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise InvalidInput(_NO_URL, "database.connection") from None
    # What is behind the first one would be taken for the host, and told to everybody as such.
    if found.get_backend_name() != "sqlite" and url.count("@") > 1:
        raise InvalidInput(_NO_URL, "database.connection")
    return found


def _server(url: sa.URL, pool_size: int) -> Database:
    timeouts = {key: value for key, value in _TIMEOUTS.get(url.get_driver_name(), {}).items() if key not in url.query}
    engine = sa.create_engine(
        url,
        # Every transaction is one statement or guarded by compare-and-set; MariaDB's default would only add lock waits.
        isolation_level="READ COMMITTED",
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        pool_recycle=3600,
        connect_args=timeouts,
    )
    if url.get_backend_name() in ("mariadb", "mysql"):

        @event.listens_for(engine, "connect")
        def on_connect(connection: Any, _entry: ConnectionPoolEntry) -> None:
            # A server may be set up to cut what is too long without a word.
            with connection.cursor() as cursor:
                cursor.execute("SET SESSION sql_mode = 'TRADITIONAL'")
                if url.get_backend_name() == "mariadb":
                    # As for PostgreSQL above; MySQL does not know it.
                    cursor.execute("SET SESSION idle_transaction_timeout = %s", (_IDLE_SECONDS,))

    return Database(reader=engine, writer=engine)


def _sqlite(url: sa.URL, synchronous: str, pool_size: int) -> Database:
    if url.database in (None, "", ":memory:"):
        raise InvalidInput("An SQLite database must be a file: one in memory would be another one for each connection.")
    _make_private(Path(str(url.database)))
    return Database(
        reader=_sqlite_engine(url, synchronous, begin="BEGIN", pool_size=pool_size),
        writer=_sqlite_engine(url, synchronous, begin="BEGIN IMMEDIATE", pool_size=1),
    )


def _make_private(file: Path) -> None:
    """Let nobody else read the database; SQLite gives the files beside it the same mode when it makes them."""
    private.make_folder(file.parent)
    private.make_file(file)
    for beside in (file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")):
        if beside.exists():
            private.make_file(beside)


def _sqlite_engine(url: sa.URL, synchronous: str, *, begin: str, pool_size: int) -> sa.Engine:
    engine = sa.create_engine(
        url,
        poolclass=sa.QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=120,
        connect_args={"check_same_thread": False, "timeout": 60},
    )

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _entry: ConnectionPoolEntry) -> None:
        # The module's own transaction control is switched off: it would begin too late to protect what was read.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def on_begin(connection: sa.Connection) -> None:
        durable = synchronous != "FULL" or connection.get_execution_options().get(_DURABLE, True)
        wanted = synchronous if durable else "NORMAL"
        if connection.info.get("synchronous") != wanted:
            connection.exec_driver_sql(f"PRAGMA synchronous={wanted}")
            connection.info["synchronous"] = wanted
        connection.exec_driver_sql(begin)

    return engine
