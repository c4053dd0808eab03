"""Which workers there are, and when each was seen last, by the database's clock."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from stillframe.domain.errors import Conflict
from stillframe.store.clock import utc_now
from stillframe.store.error_translation import repeated
from stillframe.store.tables import WORKERS

if TYPE_CHECKING:
    from stillframe.store.database import Database

# Whoever has been silent for so long is not spoken of any more.
_FORGOTTEN: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class SeenWorker:
    """A worker that has not taken its leave; `silent_seconds` since it was seen last. All by the database's clock."""

    name: str
    started_at: datetime
    seen_at: datetime
    silent_seconds: float


class Presence:
    """The rows of workers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, worker: str) -> None:
        """A worker is alive."""
        if not self._seen(worker):
            # Another thread of the same worker may have been faster.
            with suppress(Conflict):
                self._add(worker)

    @repeated
    def forget(self, worker: str) -> None:
        """A worker takes its leave."""
        with self._database.writing(durable=False) as connection:
            connection.execute(sa.delete(WORKERS).where(WORKERS.c.name == worker))

    def all(self) -> list[SeenWorker]:
        """Those that have not taken their leave, by name."""
        with self._database.reading() as connection:
            now = utc_now(connection)
            rows = connection.execute(sa.select(WORKERS).order_by(WORKERS.c.name))
            return [
                SeenWorker(row.name, row.started_at, row.seen_at, (now - row.seen_at).total_seconds()) for row in rows
            ]

    def alive(self, seconds: float) -> int:
        """How many were seen within so many seconds."""
        return sum(worker.silent_seconds <= seconds for worker in self.all())

    @repeated
    def _seen(self, worker: str) -> bool:
        with self._database.writing(durable=False) as connection:
            here = WORKERS.c.name == worker
            changed = connection.execute(sa.update(WORKERS).where(here).values(seen_at=utc_now(connection)))
            return changed.rowcount > 0

    @repeated
    def _add(self, worker: str) -> None:
        with self._database.writing(durable=False) as connection:
            now = utc_now(connection)
            connection.execute(sa.delete(WORKERS).where(WORKERS.c.seen_at < now - _FORGOTTEN))
            connection.execute(sa.insert(WORKERS).values(name=worker, started_at=now, seen_at=now))
