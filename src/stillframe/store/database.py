"""Connections to the database, set up so that each of the three kinds keeps what it has acknowledged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.pool import ConnectionPoolEntry


@dataclass(frozen=True, slots=True)
class Database:
    """Two engines on one database; on servers they are the same object.

    SQLite has one writer at a time. Giving `writer` a single connection makes threads queue for it, where several
    connections would poll its lock file and fail in the middle of a transaction that began with reading.
    """

    reader: sa.Engine
    writer: sa.Engine

    def close(self) -> None:
        self.reader.dispose()
        self.writer.dispose()


def connect(url: str, *, sqlite_synchronous: str = "FULL", pool_size: int = 20) -> Database:
    """Open a database by its SQLAlchemy URL; an SQLite file's folder is made where it is missing.

    `sqlite_synchronous` is SQLite's pragma of that name: `NORMAL` survives a killed process, `FULL` a power loss too
    (https://www.sqlite.org/pragma.html#pragma_synchronous).
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        return Database(
            reader=_sqlite(parsed, sqlite_synchronous, begin="BEGIN", pool_size=pool_size),
            writer=_sqlite(parsed, sqlite_synchronous, begin="BEGIN IMMEDIATE", pool_size=1),
        )
    options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": pool_size, "pool_pre_ping": True}
    # Every transaction is one statement or guarded by compare-and-set; the default of MariaDB would only add lock waits.
    engine = sa.create_engine(parsed, isolation_level="READ COMMITTED", pool_recycle=3600, **options)
    return Database(reader=engine, writer=engine)


def _sqlite(url: sa.URL, synchronous: str, *, begin: str, pool_size: int) -> sa.Engine:
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
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
