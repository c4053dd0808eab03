"""The claims on jobs that come round by time: who is at one, whose turn is over, and what came of it last."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from stillframe.domain.errors import Conflict, Superseded
from stillframe.domain.job import JobRecord
from stillframe.store.clock import utc_now
from stillframe.store.error_translation import repeated
from stillframe.store.tables import JOBS

if TYPE_CHECKING:
    from datetime import datetime

    from stillframe.store.database import Database

#: For a transaction of somebody else: raises `Superseded` unless a claim is the latest until its end.
Guard = Callable[[sa.Connection], None]

_FREE: Final[Mapping[str, None]] = {"claim": None, "worker": None, "renewed_at": None, "claimed_until": None}


@dataclass(frozen=True, slots=True)
class JobClaim:
    """That a worker is at a job; `id` is another one for each claim that was ever made."""

    name: str
    id: str


class JobStore:
    """The rows of jobs. All times are the database's own, so that workers need not agree about theirs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, intervals: Mapping[str, float]) -> None:
        """Have these jobs on record, with the seconds between their runs (0: switched off)."""
        seconds = {name: math.ceil(interval) for name, interval in intervals.items()}
        known = {record.name: record.interval for record in self.all()}
        for name in seconds.keys() - known.keys():
            # Another worker may be faster.
            with suppress(Conflict):
                self._add(name, seconds[name])
        for name in seconds.keys() & known.keys():
            if known[name] != seconds[name]:
                self._change(JOBS.c.name == name, {"interval_seconds": seconds[name]})

    def all(self) -> Sequence[JobRecord]:
        """All that are on record, by name."""
        return self.look()[0]

    def look(self) -> tuple[Sequence[JobRecord], datetime]:
        """All that are on record, by name, and when that was."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(JOBS).order_by(JOBS.c.name)).mappings().all()
            return [_record(row) for row in rows], utc_now(connection)

    @repeated
    def claim(self, name: str, worker: str, seconds: float, interval: float) -> JobClaim | None:
        """Claim a job for so many seconds, if it has been free for `interval` (0: if it is free); None if it is not."""
        with self._database.writing(durable=False) as connection:
            here = JOBS.c.name == name
            row = connection.execute(sa.select(JOBS).where(here).with_for_update()).mappings().first()
            now = utc_now(connection)
            if row is None or _record(row).waits(now, interval) > 0:
                return None
            claim = JobClaim(name, str(uuid.uuid4()))
            until = now + timedelta(seconds=seconds)
            values = {"claim": claim.id, "worker": worker, "renewed_at": now, "claimed_until": until}
            connection.execute(sa.update(JOBS).where(here).values(**values))
        return claim

    @repeated
    def renew(self, claim: JobClaim, seconds: float) -> bool:
        """Prolong a claim; False if it is lost. One that has run out and that nobody took holds again."""
        with self._database.writing(durable=False) as connection:
            now = utc_now(connection)
            values = {"renewed_at": now, "claimed_until": now + timedelta(seconds=seconds)}
            return connection.execute(sa.update(JOBS).where(_is(claim)).values(**values)).rowcount > 0

    @repeated
    def end(self, claim: JobClaim, counts: Mapping[str, int] | None) -> bool:
        """Note that a run has ended, and give the claim back; False if it is lost, and nothing is noted then.

        `counts`: what it has counted, by name; what it could not count stays as it is. None: it failed.
        """
        with self._database.writing(durable=False) as connection:
            row = connection.execute(sa.select(JOBS).where(_is(claim)).with_for_update()).mappings().first()
            if row is None:
                return False
            now = utc_now(connection)
            values: dict[str, Any] = {**_FREE, "ended_at": now}
            if counts is not None:
                values |= {"succeeded_at": now, "counts": {**(row["counts"] or {}), **counts}}
            connection.execute(sa.update(JOBS).where(_is(claim)).values(**values))
        return True

    def put_back(self, claim: JobClaim) -> None:
        """Give a claim back whose run was broken off, for anybody to begin anew; one that is lost is left alone."""
        self._change(_is(claim), _FREE)

    def put_all_back(self) -> None:
        """End every claim; only for who knows that no other worker is alive."""
        self._change(JOBS.c.claim.is_not(None), _FREE)

    @staticmethod
    def guard(claim: JobClaim) -> Guard:
        """See `Guard`. Whoever wants the job meanwhile waits for that transaction, which has to be short."""

        def require(connection: sa.Connection) -> None:
            held = sa.select(JOBS.c.name).where(_is(claim)).with_for_update(read=True)
            if connection.execute(held).first() is None:
                raise Superseded(f"Job {claim.name} was taken over by another worker.")

        return require

    @repeated
    def _add(self, name: str, interval: int) -> None:
        with self._database.writing(durable=False) as connection:
            row = {"name": name, "interval_seconds": interval, "known_since": utc_now(connection)}
            connection.execute(sa.insert(JOBS).values(**row))

    @repeated
    def _change(self, where: sa.ColumnElement[bool], values: Mapping[str, Any]) -> None:
        with self._database.writing(durable=False) as connection:
            connection.execute(sa.update(JOBS).where(where).values(**values))


def _is(claim: JobClaim) -> sa.ColumnElement[bool]:
    return sa.and_(JOBS.c.name == claim.name, JOBS.c.claim == claim.id)


def _record(row: sa.RowMapping) -> JobRecord:
    return JobRecord(
        name=row["name"],
        interval=row["interval_seconds"],
        known_since=row["known_since"],
        ended_at=row["ended_at"],
        succeeded_at=row["succeeded_at"],
        worker=row["worker"],
        renewed_at=row["renewed_at"],
        claimed_until=row["claimed_until"],
        counts=row["counts"],
    )
