"""Workers of the first release, which knows no claims: whether one works on the database, and what it leaves.

Of those workers there is one at a time. It takes up every operation that is open, whoever has claimed it, and its
writes cannot be refused; but for as long as it may work it holds a lock of the server's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from stillframe.domain.operation import OperationState
from stillframe.store.tables import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

# The lock of that release: on PostgreSQL by a number ("stillfr" in ASCII), on MariaDB by a name. An SQLite file has
# none, for the process that works on it is the only one.
_KEY: Final = 0x7374696C6C6672
_HELD: Final[Mapping[str, sa.TextClause]] = {
    "postgresql": sa.text(
        "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND (CAST(classid AS bigint) << 32 | CAST(objid AS bigint)) = :key)"
    ).bindparams(key=_KEY),
    "mysql": sa.text("SELECT IS_USED_LOCK(CONCAT('stillframe-', MD5(DATABASE()))) IS NOT NULL"),
}
# What such a worker changes in an operation's row while it works on it.
_SIGNS: Final = (OPERATIONS.c.attempts, OPERATIONS.c.progress, OPERATIONS.c.committed)


def works(connection: sa.Connection) -> bool:
    """Whether a worker of the first release works on this database, be it suspended or in a long call."""
    kind = connection.dialect.name
    held = _HELD.get("mysql" if kind == "mariadb" else kind)
    return held is not None and bool(connection.execute(held).scalar_one())


def without_claim() -> sa.ColumnElement[bool]:
    """Taken up by a worker that knows no claims, and by none that does."""
    return sa.and_(
        OPERATIONS.c.state == OperationState.RUNNING.value,
        OPERATIONS.c.claimed_until.is_(None),
        OPERATIONS.c.generation == 0,
    )


class Silence:
    """For how long nothing has happened to the operations that run without a claim, as far as this process saw.

    Where the lock was lost, with a server that failed, its worker learns of that within moments and ends; until then it
    goes on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[tuple[Any, ...], float]] = {}

    def lasting(self, connection: sa.Connection, seconds: float) -> set[str]:
        """The ids of those that did not change for so many seconds."""
        now = self._clock()
        rows = connection.execute(sa.select(OPERATIONS.c.id, *_SIGNS).where(without_claim()))
        signs = {row[0]: tuple(row[1:]) for row in rows}
        before, self._seen = self._seen, {}
        for operation_id, sign in signs.items():
            known = before.get(operation_id)
            self._seen[operation_id] = known if known is not None and known[0] == sign else (sign, now)
        return {operation_id for operation_id, (_sign, since) in self._seen.items() if now - since >= seconds}
