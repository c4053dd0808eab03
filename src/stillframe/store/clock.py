"""The database's own clock: what several processes compare, they all read there."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOW: Final[Mapping[str, Any]] = {
    "postgresql": sa.text("SELECT timezone('utc', clock_timestamp())"),
    "mysql": sa.text("SELECT UTC_TIMESTAMP(6)"),
    "sqlite": sa.text("SELECT strftime('%Y-%m-%d %H:%M:%f000', 'now')"),
}


def utc_now(connection: sa.Connection) -> datetime:
    """The present by the database's clock, in UTC, without a zone."""
    kind = connection.dialect.name
    now = connection.execute(_NOW["mysql" if kind == "mariadb" else kind]).scalar_one()
    return datetime.fromisoformat(now) if isinstance(now, str) else now
