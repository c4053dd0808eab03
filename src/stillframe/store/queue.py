"""Who works on what: operations wait in a fair order, are claimed for a while, and each claim has a number.

The number, the operation's generation, is what fences: a worker that slept through the end of its claim finds another
number in the row, in the same transaction as each of its writes.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from stillframe.domain.arguments import Action
from stillframe.domain.epoch import Memory, Standing, judge
from stillframe.domain.errors import Superseded
from stillframe.domain.operation import OperationState
from stillframe.settings.limits import OperationLimits
from stillframe.store import first_release
from stillframe.store.clock import utc_now
from stillframe.store.conditions import is_latest, is_mine, is_open, unclaimed
from stillframe.store.epochs import is_held, marks
from stillframe.store.error_translation import repeated
from stillframe.store.rows import operation_from_row
from stillframe.store.tables import CLAIM_LOCK, INSTANCE_LOCKS, OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from stillframe.domain.operation import Operation
    from stillframe.store.database import Database

LOG = logging.getLogger(__name__)

# Looked through for operations that the limits have room for; whoever is further back waits for a later look.
_LOOK_AHEAD: Final = 200
_CLAIMS_ROW: Final = 1


class OperationQueue:
    """The claims on operations.

    The order is fair between projects: the next one is of the project of which the fewest run, and within a project
    the oldest. All times are the database's own, so that workers need not agree about theirs. `memory` is what a state
    folder remembers of the database: nothing is taken up in one that it knows a later state of.
    """

    def __init__(
        self,
        database: Database,
        limits: OperationLimits | None = None,
        memory: Callable[[], Memory | None] = lambda: None,
    ) -> None:
        self._database = database
        self._limits = limits or OperationLimits()
        self._memory = memory
        self._silence = first_release.Silence()
        self._first_release_works = False

    def take(self, worker: str, most: int, seconds: float, without: Collection[str] = ()) -> list[Operation]:
        """Claim up to `most` operations for so many seconds, and count the attempt; those that may begin now.

        None of `without` is taken, nothing at all beside a worker of the first release, and what such a one has left
        only after it has been silent for as long as a claim holds.
        """
        if most < 1 or not self._anything_waits():
            return []
        return self._take(worker, most, seconds, without)

    @repeated
    def _take(self, worker: str, most: int, seconds: float, without: Collection[str]) -> list[Operation]:
        with self._database.writing(durable=False) as connection:
            self._lock_claims(connection)
            if self._has_to_wait(connection):
                return []
            free = sa.and_(
                _is_waiting(utc_now(connection), self._silence.lasting(connection, seconds)), self._is_sound(connection)
            )
            chosen = self._choose(connection, free, most, without)
            return self._claim(connection, chosen, free, worker, seconds)

    @repeated
    def claim(self, operation_id: str, worker: str, seconds: float) -> Operation | None:
        """Claim one operation whatever the limits are, or None if it is claimed or final, or not to be taken yet."""
        with self._database.writing(durable=False) as connection:
            if self._has_to_wait(connection):
                return None
            free = sa.and_(_is_waiting(utc_now(connection)), self._is_sound(connection))
            claimed = self._claim(connection, [operation_id], free, worker, seconds)
        return claimed[0] if claimed else None

    @repeated
    def renew(self, claimed: Collection[Operation], seconds: float) -> set[str]:
        """Prolong claims; the ids of those that still hold. One that has run out and that nobody took holds again.

        That of a settled operation is prolonged too, for as long as a call hangs in it, but does not count as held.
        """
        if not claimed:
            return set()
        with self._database.writing(durable=False) as connection:
            until = utc_now(connection) + timedelta(seconds=seconds)
            latest = sa.or_(*(is_latest(operation) for operation in claimed))
            connection.execute(sa.update(OPERATIONS).where(latest).values(claimed_until=until))
            return set(connection.execute(sa.select(OPERATIONS.c.id).where(latest, is_open())).scalars())

    @repeated
    def put_back(self, operation: Operation, seconds: float = 0, *, counted: bool = True) -> None:
        """Give a claim back, for anybody to take after so many seconds; one that is lost or over is left alone.

        Without `counted` the attempt does not count: it was broken off for reasons of ours.
        """
        with self._database.writing(durable=False) as connection:
            values: dict[str, Any] = {
                "worker": None,
                "claimed_until": utc_now(connection) + timedelta(seconds=seconds) if seconds else None,
            }
            if not counted:
                values["attempts"] = sa.case((OPERATIONS.c.attempts > 0, OPERATIONS.c.attempts - 1), else_=0)
            connection.execute(sa.update(OPERATIONS).where(is_mine(operation)).values(**values))

    @repeated
    def abandon(self, operation: Operation) -> bool:
        """Take the claim on a settled operation from whoever hangs in a call of it, and give its instance back.

        What that call does when it returns finds another generation, and may change nothing. False if the claim was
        lost before.
        """
        with self._database.writing() as connection:
            changed = connection.execute(
                sa.update(OPERATIONS)
                .where(is_latest(operation), sa.not_(is_open()))
                .values(worker=None, claimed_until=None, generation=OPERATIONS.c.generation + 1)
            )
            if changed.rowcount == 0:
                return False
            connection.execute(sa.delete(INSTANCE_LOCKS).where(INSTANCE_LOCKS.c.operation_id == operation.id))
        return True

    @repeated
    def put_all_back(self) -> None:
        """End every claim, and free what runs without one; only for who knows that no other worker is alive."""
        with self._database.writing(durable=False) as connection:
            connection.execute(
                sa.update(OPERATIONS)
                .where(OPERATIONS.c.state == OperationState.RUNNING.value)
                .values(worker=None, claimed_until=utc_now(connection))
            )

    @contextmanager
    def quiet(self) -> Iterator[bool]:
        """Whether no worker of any release is at anything; if so, none takes anything up until the block ends.

        That is sure for as long as the database leaves a transaction open in which nothing happens.
        """
        with self._database.writing(durable=False) as connection:
            self._lock_claims(connection)
            # A call may still hang in what is settled and holds its instance.
            busy = sa.or_(is_open(), OPERATIONS.c.id.in_(sa.select(INSTANCE_LOCKS.c.operation_id)))
            claimed = sa.select(OPERATIONS.c.id).where(
                busy, OPERATIONS.c.worker.is_not(None), OPERATIONS.c.claimed_until > utc_now(connection)
            )
            yield not first_release.works(connection) and connection.execute(claimed.limit(1)).first() is None

    def holds(self, operation: Operation, *, open_only: bool = True) -> bool:
        """Whether a claim is the latest and, if `open_only`, its operation open."""
        statement = sa.select(OPERATIONS.c.id).where(is_mine(operation) if open_only else is_latest(operation))
        with self._database.reading() as connection:
            return connection.execute(statement).first() is not None

    @staticmethod
    def guard(operation: Operation) -> Callable[[sa.Connection], None]:
        """For a transaction of somebody else: raises `Superseded` unless the claim is the latest until its end."""

        def require(connection: sa.Connection) -> None:
            statement = sa.select(OPERATIONS.c.id).where(is_latest(operation)).with_for_update(read=True)
            if connection.execute(statement).first() is None:
                raise Superseded(f"Task {operation.id} was taken over by another worker.")

        return require

    def waiting(self) -> int:
        """How many operations wait to be taken up."""
        with self._database.reading() as connection:
            statement = sa.select(sa.func.count()).select_from(OPERATIONS).where(_is_waiting(utc_now(connection)))
            return int(connection.execute(statement).scalar_one())

    def _anything_waits(self) -> bool:
        with self._database.reading() as connection:
            waits = sa.or_(_is_waiting(utc_now(connection)), first_release.without_claim())
            return connection.execute(sa.select(OPERATIONS.c.id).where(waits).limit(1)).first() is not None

    def _has_to_wait(self, connection: sa.Connection) -> bool:
        """Whether a worker of the first release is there, which would work on the same operations; told once."""
        works = first_release.works(connection)
        if works and not self._first_release_works:
            LOG.warning("nothing is taken up beside a worker of the first release; stop it, and this one goes on")
        self._first_release_works = works
        return works

    def _is_sound(self, connection: sa.Connection) -> sa.ColumnElement[bool]:
        """What may be done in this state of the database: in an older one, nothing but to take snapshots."""
        if is_held(connection):
            return OPERATIONS.c.action == Action.SNAPSHOT.value
        memory = self._memory()
        standing = judge(memory, marks(connection, memory.folder if memory else None))
        return sa.false() if standing in (Standing.OLDER, Standing.OTHER) else sa.true()

    def position(self, operation: Operation) -> int | None:
        """The place of an operation among those that wait, from 1, as the order is now; None if it does not wait."""
        with self._database.reading() as connection:
            now = utc_now(connection)
            waiting = _in_turn(_is_waiting(now), _running(connection, now)).subquery()
            mine = sa.select(waiting.c.turn, waiting.c.sequence).where(waiting.c.id == operation.id)
            found = connection.execute(mine).first()
            if found is None:
                return None
            earlier = sa.or_(
                waiting.c.turn < found.turn,
                sa.and_(waiting.c.turn == found.turn, waiting.c.sequence < found.sequence),
            )
            ahead = connection.execute(sa.select(sa.func.count()).select_from(waiting).where(earlier))
            return int(ahead.scalar_one()) + 1

    def open_among(self, ids: Collection[str]) -> set[str]:
        """Which of these operations are not final."""
        statement = sa.select(OPERATIONS.c.id).where(is_open(), OPERATIONS.c.id.in_(ids))
        with self._database.reading() as connection:
            return set(connection.execute(statement).scalars())

    def _lock_claims(self, connection: sa.Connection) -> None:
        """One at a time from here to the end of the transaction."""
        row = sa.select(CLAIM_LOCK.c.id).where(CLAIM_LOCK.c.id == _CLAIMS_ROW).with_for_update()
        if connection.execute(row).first() is not None:
            return
        try:
            with connection.begin_nested():
                connection.execute(sa.insert(CLAIM_LOCK).values(id=_CLAIMS_ROW))
        except IntegrityError:
            connection.execute(row)

    def _choose(
        self, connection: sa.Connection, free: sa.ColumnElement[bool], most: int, without: Collection[str]
    ) -> list[str]:
        taken = _running(connection, utc_now(connection))
        waiting = connection.execute(
            _in_turn(free, taken).order_by(sa.literal_column("turn"), OPERATIONS.c.sequence).limit(_LOOK_AHEAD + most)
        )
        chosen: list[str] = []
        for row in waiting:
            keys = [_project(row.project_id), *(row.places or ())]
            if row.id not in without and len(chosen) < most and all(self._has_room(key, taken) for key in keys):
                chosen.append(row.id)
                taken.update(keys)
        return chosen

    def _has_room(self, key: str, taken: Mapping[str, int]) -> bool:
        limit = self._limits.of(key)
        return not limit or taken.get(key, 0) < limit

    @staticmethod
    def _claim(
        connection: sa.Connection, ids: Sequence[str], free: sa.ColumnElement[bool], worker: str, seconds: float
    ) -> list[Operation]:
        if not ids:
            return []
        claimed: list[Operation] = []
        until = utc_now(connection) + timedelta(seconds=seconds)
        for operation_id in ids:
            here = OPERATIONS.c.id == operation_id
            changed = connection.execute(
                sa.update(OPERATIONS)
                .where(here, free)
                .values(
                    state=OperationState.RUNNING.value,
                    worker=worker,
                    claimed_until=until,
                    generation=OPERATIONS.c.generation + 1,
                    attempts=OPERATIONS.c.attempts + 1,
                )
            )
            if changed.rowcount:
                row = connection.execute(sa.select(OPERATIONS).where(here)).mappings().one()
                claimed.append(operation_from_row(row))
        return claimed


def _is_waiting(now: datetime, silent: Collection[str] = ()) -> sa.ColumnElement[bool]:
    """Open and nobody's; those of `silent` may be taken although they run without a claim."""
    nobodys = unclaimed(now)
    if silent:
        nobodys = sa.or_(nobodys, sa.and_(first_release.without_claim(), OPERATIONS.c.id.in_(silent)))
    return sa.and_(is_open(), nobodys)


def _project(project_id: str) -> str:
    return f"project:{project_id}"


def _running(connection: sa.Connection, now: datetime) -> Counter[str]:
    """How many claims there are by the key of a limit."""
    statement = sa.select(OPERATIONS.c.project_id, OPERATIONS.c.places).where(
        OPERATIONS.c.state == OperationState.RUNNING.value,
        OPERATIONS.c.worker.is_not(None),
        OPERATIONS.c.claimed_until > now,
    )
    taken: Counter[str] = Counter()
    for row in connection.execute(statement):
        taken.update([_project(row.project_id), *(row.places or ())])
    return taken


def _in_turn(free: sa.ColumnElement[bool], taken: Mapping[str, int]) -> sa.Select[Any]:
    """What is free to take; `turn` is how many of its project run or wait before it, plus one."""
    rank = sa.func.row_number().over(
        partition_by=OPERATIONS.c.project_id, order_by=(OPERATIONS.c.sequence, OPERATIONS.c.id)
    )
    running = {key.partition(":")[2]: count for key, count in taken.items() if key.startswith("project:")}
    ahead = sa.case(running, value=OPERATIONS.c.project_id, else_=0) if running else sa.literal(0)
    return sa.select(
        OPERATIONS.c.id,
        OPERATIONS.c.project_id,
        OPERATIONS.c.places,
        OPERATIONS.c.sequence,
        (rank + ahead).label("turn"),
    ).where(free)
