"""Where the store is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oslo_config import cfg

from stillframe.settings.groups import Group

OPTIONS: Final = [
    cfg.StrOpt(
        "connection",
        secret=True,
        help="SQLAlchemy URL of the database; without it an SQLite file in state_dir. PostgreSQL: "
        "postgresql+psycopg://..., MariaDB: mariadb+pymysql://...",
    ),
    cfg.StrOpt(
        "sqlite_synchronous",
        default="FULL",
        choices=["NORMAL", "FULL"],
        help="NORMAL survives a killed process, FULL also a loss of power.",
    ),
    cfg.IntOpt(
        "pool_size",
        default=20,
        min=2,
        help="Connections kept open to a database server, which gets up to twice as many under load. With SQLite: "
        "connections for reading.",
    ),
]

GROUP: Final = Group("database", OPTIONS)


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Where the store is."""

    url: str
    sqlite_synchronous: str
    pool_size: int


def read(conf: cfg.ConfigOpts, state_dir: Path) -> DatabaseSettings:
    """What the options say."""
    return DatabaseSettings(
        url=conf.database.connection or f"sqlite:///{state_dir / 'stillframe.sqlite'}",
        sqlite_synchronous=conf.database.sqlite_synchronous,
        pool_size=conf.database.pool_size,
    )
