"""Operations and the statuses they move: every change of a status goes through here, by compare-and-set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from stillframe.domain.errors import Conflict, NotFound, Refused, Superseded
from stillframe.domain.operation import FlowRecord, Operation, OperationState, Settlement, Unchanged
from stillframe.domain.status import Event, Status, advance
from stillframe.store import first_release
from stillframe.store.clock import utc_now
from stillframe.store.conditions import is_mine, is_open, unclaimed
from stillframe.store.epochs import require_latest
from stillframe.store.error_translation import repeated
from stillframe.store.numbering import next_number
from stillframe.store.rows import (
    consistency_to_json,
    fault_to_json,
    fitting,
    not_before_creation,
    operation_from_row,
    operation_to_row,
    record_to_json,
    snapshot_from_row,
    snapshot_to_row,
    untouched_to_json,
)
from stillframe.store.snapshots import place_of
from stillframe.store.tables import FENCES, INSTANCE_LOCKS, OPERATIONS, SNAPSHOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from stillframe.domain.snapshot import InstanceSnapshot
    from stillframe.store.database import Database


_OF_A_RESTORE: Final = ("temp_snapshots", "failed_snapshots")


@dataclass(frozen=True, slots=True)
class Fence:
    """An instance that must not run, for which snapshot's sake, and whether it ran before (None: not yet known)."""

    instance_id: str
    snapshot_id: str
    was_active: bool | None


class OperationStore:
    """The rows of operations, instance locks and fences, and the statuses that change with them.

    Each change is one transaction, and nothing of it is left if it is not committed. Only the bookkeeping that a new
    start makes good may be lost with the power.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @repeated
    def begin_create(self, snapshot: InstanceSnapshot, operation: Operation) -> None:
        """Accept a new instance snapshot and its operation; raises `Conflict` if the instance is busy or fenced."""
        with self._database.writing() as connection:
            # The lock first: a restore that ends in between would leave a fence that had not been there yet.
            self._lock(connection, operation)
            fence = self._fence(connection, operation.instance_id)
            if fence is not None:
                raise Conflict(_fenced_message(fence))
            _insert(connection, SNAPSHOTS, snapshot_to_row(snapshot))
            _insert(connection, OPERATIONS, operation_to_row(operation))

    @repeated
    def begin(self, operation: Operation, event: Event, seen: Status, *, fence: bool) -> None:
        """Accept an operation on an instance snapshot whose status was `seen`.

        `fence` reserves the instance for this snapshot's restore. Raises `Conflict` if the instance is busy or fenced
        for another snapshot, or the status changed since it was seen; `OlderDatabase`; as `advance` if the status
        forbids the event.
        """
        following = advance(seen, event)
        # Safety copies that an earlier restore left over are not of the present that a rollback would be for.
        forgotten = dict.fromkeys(_OF_A_RESTORE, sa.null()) if event is Event.RESTORE else {}
        with self._database.writing() as connection:
            require_latest(connection)
            self._lock(connection, operation)
            if fence:
                self._take_fence(connection, operation)
            untouched = frozenset() if event is Event.RESTORE else self._untouched(connection, operation)
            changed = connection.execute(
                sa.update(SNAPSHOTS)
                .where(SNAPSHOTS.c.id == operation.snapshot_id, SNAPSHOTS.c.status == seen.value)
                .values(
                    status=following.value,
                    task_id=operation.id,
                    action=operation.action.value,
                    updated_at=not_before_creation(operation.created_at),
                    untouched=untouched_to_json(untouched, operation.id),
                    **forgotten,
                )
            )
            if changed.rowcount == 0:
                raise Conflict("The instance snapshot changed while the request was handled; look at it and try again.")
            _insert(connection, OPERATIONS, operation_to_row(operation))

    def get(self, operation_id: str) -> Operation:
        """One operation; raises `NotFound`."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(OPERATIONS).where(OPERATIONS.c.id == operation_id)).mappings().first()
        if row is None:
            raise NotFound(f"Task {operation_id} could not be found.")
        return operation_from_row(row)

    def unfinished(self) -> list[Operation]:
        """Everything that has a worker or must get one, the oldest first."""
        statement = sa.select(OPERATIONS).where(is_open()).order_by(OPERATIONS.c.sequence, OPERATIONS.c.created_at)
        with self._database.reading() as connection:
            return [operation_from_row(row) for row in connection.execute(statement).mappings()]

    def overdue(self, before: datetime) -> list[Operation]:
        """What is not final although its deadline was before a time."""
        statement = sa.select(OPERATIONS).where(is_open(), OPERATIONS.c.deadline < before)
        with self._database.reading() as connection:
            return [operation_from_row(row) for row in connection.execute(statement).mappings()]

    @repeated
    def raise_progress(self, operation: Operation, percent: int) -> None:
        """Move the progress of an open operation up to `percent`, never down."""
        with self._database.writing(durable=False) as connection:
            connection.execute(
                sa.update(OPERATIONS)
                .where(is_mine(operation), OPERATIONS.c.progress < percent)
                .values(progress=percent)
            )

    @repeated
    def commit(self, operation: Operation, safety_copies: Mapping[str, str] | None) -> None:
        """Mark the point of no return, and show the safety copies with it (None: those of before still hold).

        Raises `Superseded` if the operation is final or claimed anew.
        """
        with self._database.writing() as connection:
            self._change_open(connection, operation, {"committed": True})
            if safety_copies is not None:
                here = SNAPSHOTS.c.id == operation.snapshot_id
                connection.execute(sa.update(SNAPSHOTS).where(here).values(temp_snapshots=dict(safety_copies)))

    @repeated
    def forget_untouched(self, operation: Operation) -> None:
        """Let every volume count as touched by an earlier restore.

        Raises `Superseded` if the operation is final or claimed anew.
        """
        with self._database.writing() as connection:
            self._change_open(connection, operation, {"attempts": OPERATIONS.c.attempts})
            here = SNAPSHOTS.c.id == operation.snapshot_id
            connection.execute(sa.update(SNAPSHOTS).where(here).values(untouched=sa.null()))

    @repeated
    def make_durable(self, operation: Operation) -> None:
        """Have all that was recorded about an open operation outlive a loss of power, its flow book too.

        Raises `Superseded` if the operation is final.
        """
        with self._database.writing() as connection:
            # Any change will do: see `Database.books`.
            self._change_open(connection, operation, {"attempts": OPERATIONS.c.attempts})

    @repeated
    def finish(self, operation: Operation, settlement: Settlement, now: datetime, percent: int = 0) -> Status:
        """Settle an operation: its record, the status, the maps, the lock and the fence, in one transaction.

        `percent` is how far a failed one came, 0..99; more than that may have been told before.

        Returns the new status. Raises `Superseded` if it has been settled already or claimed anew; but to repeat the
        very same settlement, of the same time, is fine: who lost the reply of a commit cannot know that it was made.
        """
        state = OperationState.SUCCEEDED if settlement.succeeded else OperationState.FAILED
        with self._database.writing() as connection:
            final: dict[str, Any] = {
                "state": state.value,
                "finished_at": now,
                "fault": fault_to_json(settlement.fault),
                "progress": 100 if settlement.succeeded else _at_least(percent),
            }
            settled = self._settled_before(connection, operation.id, final)
            if settled is not None:
                return settled
            self._change_open(connection, operation, final)
            following = self._move(connection, operation, settlement, now)
            if settlement.free:
                connection.execute(sa.delete(INSTANCE_LOCKS).where(INSTANCE_LOCKS.c.operation_id == operation.id))
            if settlement.unfence:
                connection.execute(
                    sa.delete(FENCES).where(
                        FENCES.c.instance_id == operation.instance_id, FENCES.c.snapshot_id == operation.snapshot_id
                    )
                )
        return following

    @repeated
    def keep_record(self, operation_id: str, record: FlowRecord) -> None:
        """Keep what was recorded of the flow of an operation."""
        with self._database.writing(durable=False) as connection:
            kept = {"record": record_to_json(record)}
            connection.execute(sa.update(OPERATIONS).where(OPERATIONS.c.id == operation_id).values(**kept))

    @repeated
    def free_settled(self, operation_id: str | None = None) -> None:
        """Give back the instance that a settled operation still holds.

        None: those of all, but where a worker is alive that still has the claim: a call hangs there. None at all beside
        a worker of the first release, where one may hang without a claim.
        """
        settled = (
            sa.select(INSTANCE_LOCKS.c.operation_id)
            .join(OPERATIONS, OPERATIONS.c.id == INSTANCE_LOCKS.c.operation_id)
            .where(sa.not_(is_open()))
        )
        with self._database.writing(durable=False) as connection:
            if operation_id is not None:
                settled = settled.where(OPERATIONS.c.id == operation_id)
            elif first_release.works(connection):
                return
            else:
                settled = settled.where(unclaimed(utc_now(connection)))
            # Looked up first, without locks: what is settled stays settled, and a lock never changes its owner.
            owners = list(connection.execute(settled).scalars())
            if owners:
                connection.execute(sa.delete(INSTANCE_LOCKS).where(INSTANCE_LOCKS.c.operation_id.in_(owners)))

    @repeated
    def forget_finished(
        self, before: datetime, guard: Callable[[sa.Connection], None] = lambda _connection: None
    ) -> Sequence[str]:
        """Drop the records of operations that were settled before a time; returns their ids.

        `guard` may raise, and nothing is dropped then.

        Each snapshot's latest stays, and so does one that holds its instance: without its record nobody could tell
        that the instance may be given back.
        """
        latest = sa.select(SNAPSHOTS.c.task_id).where(SNAPSHOTS.c.task_id.is_not(None))
        holding = sa.select(INSTANCE_LOCKS.c.operation_id)
        old = sa.select(OPERATIONS.c.id).where(
            OPERATIONS.c.finished_at < before, OPERATIONS.c.id.not_in(latest), OPERATIONS.c.id.not_in(holding)
        )
        with self._database.writing() as connection:
            guard(connection)
            ids = list(connection.execute(old).scalars())
            for start in range(0, len(ids), 500):
                connection.execute(sa.delete(OPERATIONS).where(OPERATIONS.c.id.in_(ids[start : start + 500])))
        return ids

    def fence(self, instance_id: str) -> Fence | None:
        with self._database.reading() as connection:
            return self._fence(connection, instance_id)

    def require_free(self, instance_id: str) -> None:
        """Raises `Conflict` if an operation holds the instance."""
        with self._database.reading() as connection:
            here = sa.select(INSTANCE_LOCKS.c.operation_id).where(INSTANCE_LOCKS.c.instance_id == instance_id)
            if connection.execute(here).first() is not None:
                raise Conflict(_busy_message(instance_id))

    def require_latest(self) -> None:
        """Raises `OlderDatabase` where this is an older state of the database that nobody has accepted yet."""
        with self._database.reading() as connection:
            require_latest(connection)

    @repeated
    def note_power(self, operation: Operation, *, was_active: bool) -> bool:
        """Remember whether a fenced instance ran before; the first answer stays, and is returned.

        Raises `Superseded` if the operation is final or claimed anew.
        """
        with self._database.writing() as connection:
            self._change_open(connection, operation, {"attempts": OPERATIONS.c.attempts})
            connection.execute(
                sa.update(FENCES)
                .where(FENCES.c.instance_id == operation.instance_id, FENCES.c.was_active.is_(None))
                .values(was_active=was_active)
            )
            fence = self._fence(connection, operation.instance_id)
        return bool(fence and fence.was_active)

    def open_by_action(self) -> list[tuple[str, datetime]]:
        """Action and time of acceptance of every open operation, for the metrics."""
        statement = sa.select(OPERATIONS.c.action, OPERATIONS.c.created_at).where(is_open())
        with self._database.reading() as connection:
            return [(action, created_at) for action, created_at in connection.execute(statement)]

    def last_failures(self, after: datetime) -> dict[str, datetime]:
        """When the last operation of each action failed, of those that failed after a time, for the metrics."""
        statement = (
            sa.select(OPERATIONS.c.action, sa.func.max(OPERATIONS.c.finished_at).label("failed_at"))
            .where(OPERATIONS.c.finished_at > after, OPERATIONS.c.state == OperationState.FAILED.value)
            .group_by(OPERATIONS.c.action)
        )
        with self._database.reading() as connection:
            return {row.action: row.failed_at for row in connection.execute(statement)}

    def _untouched(self, connection: sa.Connection, operation: Operation) -> frozenset[str]:
        here = sa.select(SNAPSHOTS).where(SNAPSHOTS.c.id == operation.snapshot_id)
        row = connection.execute(here).mappings().first()
        return frozenset() if row is None else snapshot_from_row(row).untouched

    def _change_open(self, connection: sa.Connection, operation: Operation, values: Mapping[str, Any]) -> None:
        changed = connection.execute(sa.update(OPERATIONS).where(is_mine(operation)).values(**values))
        if changed.rowcount == 0:
            raise Superseded(f"Task {operation.id} has been settled already, or taken over by another worker.")

    def _settled_before(self, connection: sa.Connection, operation_id: str, final: Mapping[str, Any]) -> Status | None:
        """The status, if just this settlement has been made already."""
        same = sa.and_(*(OPERATIONS.c[key] == final[key] for key in ("state", "finished_at")))
        found = connection.execute(
            sa.select(SNAPSHOTS.c.status)
            .select_from(OPERATIONS)
            .outerjoin(SNAPSHOTS, SNAPSHOTS.c.id == OPERATIONS.c.snapshot_id)
            .where(OPERATIONS.c.id == operation_id, same)
        ).first()
        return None if found is None else Status(found.status or Status.GONE)

    def _move(self, connection: sa.Connection, operation: Operation, settlement: Settlement, now: datetime) -> Status:
        moved = Superseded(f"Instance snapshot {operation.snapshot_id} left its status while task {operation.id} ran.")
        here = SNAPSHOTS.c.id == operation.snapshot_id
        status = connection.execute(sa.select(SNAPSHOTS.c.status).where(here)).scalar()
        if status is None:
            raise moved
        seen = Status(status)
        try:
            following = advance(seen, settlement.event)
        except (Refused, Conflict):
            raise moved from None
        compared = sa.and_(here, SNAPSHOTS.c.status == seen.value)
        if following is Status.GONE:
            place = place_of(connection, operation.snapshot_id)
            connection.execute(sa.update(OPERATIONS).where(OPERATIONS.c.id == operation.id).values(place=place))
            changed = connection.execute(sa.delete(SNAPSHOTS).where(compared))
        else:
            changed = connection.execute(
                sa.update(SNAPSHOTS).where(compared).values(**_settled(settlement, following, operation.id, now))
            )
        if changed.rowcount == 0:
            raise moved
        return following

    def _lock(self, connection: sa.Connection, operation: Operation) -> None:
        try:
            connection.execute(
                sa.insert(INSTANCE_LOCKS).values(instance_id=operation.instance_id, operation_id=operation.id)
            )
        except IntegrityError:
            raise Conflict(_busy_message(operation.instance_id)) from None

    def _take_fence(self, connection: sa.Connection, operation: Operation) -> None:
        fence = self._fence(connection, operation.instance_id)
        if fence is None:
            connection.execute(
                sa.insert(FENCES).values(
                    instance_id=operation.instance_id, snapshot_id=operation.snapshot_id, was_active=None
                )
            )
        elif fence.snapshot_id != operation.snapshot_id:
            raise Conflict(_fenced_message(fence))

    def _fence(self, connection: sa.Connection, instance_id: str) -> Fence | None:
        row = connection.execute(sa.select(FENCES).where(FENCES.c.instance_id == instance_id)).mappings().first()
        if row is None:
            return None
        return Fence(row["instance_id"], row["snapshot_id"], row["was_active"])


def _at_least(percent: int) -> sa.ColumnElement[Any]:
    """A progress that does not fall."""
    return sa.case((OPERATIONS.c.progress < percent, percent), else_=OPERATIONS.c.progress)


def _insert(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> None:
    numbered = {**fitting(table, row), "sequence": next_number(connection, table)}
    connection.execute(sa.insert(table).values(**numbered))


def _settled(settlement: Settlement, following: Status, task_id: str, now: datetime) -> dict[str, Any]:
    """What a settlement makes of a snapshot's row."""
    values: dict[str, Any] = {
        "status": following.value,
        "fault": fault_to_json(settlement.fault),
        "updated_at": not_before_creation(now),
    }
    maps = {
        "snapshots": settlement.snapshots,
        "temp_snapshots": settlement.temp_snapshots,
        "failed_snapshots": settlement.failed_snapshots,
    }
    values |= {name: value for name, value in maps.items() if value is not Unchanged.UNCHANGED}
    if settlement.untouched is not None:
        values["untouched"] = untouched_to_json(settlement.untouched, task_id)
    if settlement.consistency is not None:
        values["consistency"] = consistency_to_json(settlement.consistency)
    return values


def _busy_message(instance_id: str) -> str:
    return (
        f"Another operation is changing instance {instance_id} or one of its snapshots; wait for its end and try again."
    )


def _fenced_message(fence: Fence) -> str:
    return (
        f"Instance {fence.instance_id} is fenced: the restore to instance snapshot {fence.snapshot_id} did not make "
        "all of its volumes whole. Retry that restore, roll it back, or delete that instance snapshot first."
    )
