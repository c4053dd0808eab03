"""The marks by which a state folder tells an older state of the database from the latest one; see `domain.epoch`."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from stillframe.domain.arguments import Action, RestoreArguments
from stillframe.domain.epoch import Marks, Memory, Standing, judge
from stillframe.domain.errors import Conflict, OlderDatabase
from stillframe.domain.snapshot import Fault
from stillframe.domain.status import Status, advance
from stillframe.domain.verdict import Failure, Nothing, verdict
from stillframe.store.clock import utc_now
from stillframe.store.conditions import is_open
from stillframe.store.error_translation import repeated
from stillframe.store.rows import fault_to_json, not_before_creation, operation_from_row
from stillframe.store.tables import EPOCHS, FENCES, INSTANCE_LOCKS, MARKS, OPERATIONS, PUT_BACKS, SNAPSHOTS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from stillframe.domain.operation import Operation
    from stillframe.domain.reconciliation import Change
    from stillframe.store.database import Database

_ONE: Final = 1
_REFUSED: Final = (
    "An older state of the service's database was put back, so what is on record about this instance may not be true "
    "any more. Nothing is restored, rolled back or deleted until an operator has accepted that state with "
    "'stillframe db accept-older'."
)
_SETTLED: Final = (
    "An older state of the service's database was put back, in which this operation had not ended. How it did end is "
    "not on record."
)


@dataclass(frozen=True, slots=True)
class PutBack:
    """That an older state of the database was put back: noticed when, by the database's clock, and by whom."""

    noticed_at: datetime
    noticed_by: str


def is_held(connection: sa.Connection) -> bool:
    """Whether this is an older state of the database that nobody has accepted yet."""
    return connection.execute(sa.select(PUT_BACKS.c.id)).first() is not None


def require_latest(connection: sa.Connection) -> None:
    """Raises `OlderDatabase` where this is an older state that nobody has accepted yet."""
    if is_held(connection):
        raise OlderDatabase(_REFUSED)


def marks(connection: sa.Connection, folder: str | None) -> Marks:
    """What the database says to a state folder."""
    # The marks first: who accepts an older state takes all of them away, and begins an epoch.
    rows = connection.execute(sa.select(MARKS.c.mark, MARKS.c.earlier).where(MARKS.c.folder == folder)).all()
    epochs = connection.execute(sa.select(EPOCHS.c.id).order_by(EPOCHS.c.number)).scalars()
    return Marks(tuple(epochs), frozenset(mark for row in rows for mark in row if mark is not None))


class EpochStore:
    """The marks of state folders, the epochs, and the hold on an older state that was put back."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def marks(self, folder: str | None) -> Marks:
        """See `marks`."""
        with self._database.reading() as connection:
            return marks(connection, folder)

    def is_empty(self) -> bool:
        """Whether nothing is on record, so that nobody can be misled by it."""
        with self._database.reading() as connection:
            return all(connection.execute(sa.select(table.c.id)).first() is None for table in (SNAPSHOTS, OPERATIONS))

    @repeated
    def join(self, folder: str) -> Memory:
        """Begin with a state folder; what it has to remember from now on. Raises `Conflict`: try again."""
        mark = _new()
        with self._database.writing() as connection:
            epochs = marks(connection, None).epochs
            if not epochs:
                epochs = (_new(),)
                connection.execute(sa.insert(EPOCHS).values(number=_ONE, id=epochs[0]))
            here = MARKS.c.folder == folder
            if connection.execute(sa.update(MARKS).where(here).values(mark=mark, earlier=None)).rowcount == 0:
                connection.execute(sa.insert(MARKS).values(folder=folder, mark=mark))
        return Memory(folder, epochs[0], epochs[-1], mark)

    @repeated
    def advance(self, memory: Memory) -> Memory | None:
        """Give a folder's next mark; None if the database does not know what it remembers (any more)."""
        following = replace(memory, mark=_new())
        known = sa.or_(MARKS.c.mark == memory.mark, MARKS.c.earlier == memory.mark)
        with self._database.writing() as connection:
            # Until the folder has noted the next one, the present one has to stay known.
            changed = connection.execute(
                sa.update(MARKS)
                .where(MARKS.c.folder == memory.folder, known)
                .values(mark=following.mark, earlier=memory.mark)
            )
        return following if changed.rowcount else None

    def put_back(self) -> PutBack | None:
        """What is known of an older state that was put back and that nobody has accepted yet."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(PUT_BACKS)).first()
        return None if row is None else PutBack(row.noticed_at, row.noticed_by)

    @repeated
    def hold(self, noticed_by: str, memory: Memory | None) -> Sequence[str] | None:
        """Note that this is an older state, and settle as failed what is open in it: it has long ended, somehow.

        `memory` is what shows it, where that is not somebody's word. The ids of these operations; None if it had been
        noted before, or was accepted by now. Raises `Conflict`: another one is about to.
        """
        with self._database.writing() as connection:
            if is_held(connection):
                return None
            # It may have been accepted since the memory was compared.
            if memory is not None and judge(memory, marks(connection, memory.folder)) is not Standing.OLDER:
                return None
            now = utc_now(connection)
            connection.execute(sa.insert(PUT_BACKS).values(id=_ONE, noticed_at=now, noticed_by=noticed_by))
            return [_settle(connection, operation, now).id for operation in _open(connection)]

    @repeated
    def accept(self, changes: Sequence[Change], strangers: Collection[str]) -> None:
        """Make these changes, begin a new epoch, and end the hold; `strangers` are epochs that count as past ones.

        Raises `Conflict` if one of the instance snapshots has changed since it was looked at.
        """
        with self._database.writing() as connection:
            now = utc_now(connection)
            for operation in _open(connection):
                if operation.action is not Action.SNAPSHOT:
                    # Accepted by a process that did not know.
                    raise Conflict(f"Task {operation.id} was accepted meanwhile; look again.")
            for change in changes:
                _make(connection, change, now)
            for change in changes:
                _fence(connection, change)
            known = marks(connection, None).epochs
            missing = [epoch for epoch in strangers if epoch not in known]
            for number, epoch in enumerate([*missing, _new()], start=len(known) + _ONE):
                connection.execute(sa.insert(EPOCHS).values(number=number, id=epoch))
            connection.execute(sa.delete(MARKS))
            connection.execute(sa.delete(PUT_BACKS))


def _new() -> str:
    return str(uuid.uuid4())


def _open(connection: sa.Connection) -> list[Operation]:
    return [operation_from_row(row) for row in connection.execute(sa.select(OPERATIONS).where(is_open())).mappings()]


def _settle(connection: sa.Connection, operation: Operation, now: datetime) -> Operation:
    """End an operation without doing or undoing anything; no worker that has it may write any more."""
    ended = verdict(Nothing(operation.action, Failure(Fault(OlderDatabase.code, _SETTLED, now), undone=False)))
    fault = fault_to_json(ended.fault)
    connection.execute(
        sa.update(OPERATIONS)
        .where(OPERATIONS.c.id == operation.id, is_open())
        .values(
            state="failed",
            finished_at=now,
            fault=fault,
            worker=None,
            claimed_until=None,
            generation=OPERATIONS.c.generation + 1,
        )
    )
    connection.execute(sa.delete(INSTANCE_LOCKS).where(INSTANCE_LOCKS.c.operation_id == operation.id))
    here = sa.and_(SNAPSHOTS.c.id == operation.snapshot_id, SNAPSHOTS.c.task_id == operation.id)
    status = connection.execute(sa.select(SNAPSHOTS.c.status).where(here)).scalar()
    if status is not None:
        following = advance(Status(status), ended.event)
        values = {"status": following.value, "fault": fault, "updated_at": not_before_creation(now)}
        if isinstance(operation.arguments, RestoreArguments) and following is Status.RESTORE_ERROR:
            values["failed_snapshots"] = dict(operation.arguments.copies)
        connection.execute(sa.update(SNAPSHOTS).where(here).values(**values))
    return operation


def _make(connection: sa.Connection, change: Change, now: datetime) -> None:
    seen = change.snapshot
    changed = connection.execute(
        sa.update(SNAPSHOTS)
        .where(SNAPSHOTS.c.id == seen.id, SNAPSHOTS.c.status == seen.status.value, SNAPSHOTS.c.task_id == seen.task_id)
        .values(
            status=change.status.value,
            fault=fault_to_json(Fault(OlderDatabase.code, change.why, now)),
            updated_at=not_before_creation(now),
            untouched=sa.null(),
            **{key: sa.null() if value is None else dict(value) for key, value in change.maps.items()},
        )
    )
    if changed.rowcount == 0:
        raise Conflict(f"Instance snapshot {seen.id} has changed meanwhile; look again.")
    connection.execute(sa.delete(FENCES).where(FENCES.c.snapshot_id == seen.id))


def _fence(connection: sa.Connection, change: Change) -> None:
    if change.fenced:
        try:
            with connection.begin_nested():
                connection.execute(
                    sa.insert(FENCES).values(instance_id=change.snapshot.instance_id, snapshot_id=change.snapshot.id)
                )
        except IntegrityError:
            raise Conflict(
                f"Instance {change.snapshot.instance_id} is fenced for another snapshot; look again."
            ) from None
