"""What the store knows about things that were left behind, and the removal of what was left in the store itself."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from stillframe.domain.errors import Conflict
from stillframe.domain.leftover import Owner
from stillframe.domain.operation import OperationState
from stillframe.domain.status import Status
from stillframe.store.epochs import is_held
from stillframe.store.error_translation import repeated
from stillframe.store.operations import Fence
from stillframe.store.rows import operation_from_row, snapshot_from_row
from stillframe.store.tables import FENCES, INSTANCE_LOCKS, OPERATIONS, SNAPSHOTS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from stillframe.domain.operation import Operation
    from stillframe.store.database import Database

# As many values in one statement as each kind of database takes.
_AT_A_TIME: Final = 500
_FINAL: Final = (OperationState.SUCCEEDED.value, OperationState.FAILED.value)
_NO_ONE: Final = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Lock:
    """An instance that is held, by which operation, and that operation's record (None: there is none)."""

    instance_id: str
    operation_id: str
    holder: Operation | None


class Held:
    """An instance that no operation can be begun on, as long as the context that it comes from is open."""

    def __init__(self, connection: sa.Connection, instance_id: str) -> None:
        self._connection = connection
        self._instance_id = instance_id

    def owner(self, snapshot_id: str) -> Owner:
        """What is known about an instance snapshot of this instance."""
        return _owners(self._connection, [snapshot_id])[snapshot_id]

    def drop_fence(self, snapshot_id: str) -> None:
        """Take the store's fence away, if it stands for this instance snapshot."""
        self._connection.execute(
            sa.delete(FENCES).where(FENCES.c.instance_id == self._instance_id, FENCES.c.snapshot_id == snapshot_id)
        )


class LeftoverStore:
    """Looks at rows for the sake of what carries their ids."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def owners(self, snapshot_ids: Collection[str]) -> Mapping[str, Owner]:
        """What is known about each of these instance snapshots, the unknown ones too."""
        with self._database.reading() as connection:
            return _owners(connection, snapshot_ids)

    def makers(self, operation_ids: Collection[str]) -> Mapping[str, Operation]:
        """Those of these operations that are on record."""
        with self._database.reading() as connection:
            rows = [
                row
                for some in _portions(operation_ids)
                for row in connection.execute(sa.select(OPERATIONS).where(OPERATIONS.c.id.in_(some))).mappings()
            ]
        return {row["id"]: operation_from_row(row) for row in rows}

    def is_held(self) -> bool:
        """Whether this is an older state of the database, which nobody has accepted yet."""
        with self._database.reading() as connection:
            return is_held(connection)

    def shown(self) -> dict[str, str]:
        """The copies that can be restored from, by what is on record, with their instance snapshots."""
        statement = sa.select(SNAPSHOTS.c.id, SNAPSHOTS.c.snapshots).where(SNAPSHOTS.c.status == Status.AVAILABLE.value)
        with self._database.reading() as connection:
            return {copy: row.id for row in connection.execute(statement) for copy in (row.snapshots or {}).values()}

    def fences(self) -> list[Fence]:
        """All fences of the store."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(FENCES)).mappings().all()
        return [Fence(row["instance_id"], row["snapshot_id"], row["was_active"]) for row in rows]

    def fenced_for_good(self) -> int:
        """How many instances are fenced though no operation is on them: a restore failed, and somebody has to act."""
        free = FENCES.c.instance_id.not_in(sa.select(INSTANCE_LOCKS.c.instance_id))
        with self._database.reading() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(FENCES).where(free)).scalar_one())

    def locks(self) -> list[Lock]:
        """All instances that are held."""
        # One statement, hence one instant: a lock and its operation come into being together.
        statement = sa.select(
            INSTANCE_LOCKS.c.instance_id.label("held_instance"), INSTANCE_LOCKS.c.operation_id, OPERATIONS
        ).outerjoin(OPERATIONS, OPERATIONS.c.id == INSTANCE_LOCKS.c.operation_id)
        with self._database.reading() as connection:
            rows = connection.execute(statement).mappings().all()
        return [
            Lock(row["held_instance"], row["operation_id"], operation_from_row(row) if row["id"] else None)
            for row in rows
        ]

    @repeated
    def drop_lock(self, instance_id: str, operation_id: str) -> None:
        """Give an instance back that an operation holds which is settled, or was never accepted."""
        alive = sa.select(OPERATIONS.c.id).where(OPERATIONS.c.id == operation_id, OPERATIONS.c.state.not_in(_FINAL))
        with self._database.writing() as connection:
            # Looked up first: in one statement MariaDB would compare rows of two different instants.
            if connection.execute(alive).first() is None:
                connection.execute(
                    sa.delete(INSTANCE_LOCKS).where(
                        INSTANCE_LOCKS.c.instance_id == instance_id, INSTANCE_LOCKS.c.operation_id == operation_id
                    )
                )

    @contextmanager
    def holding(self, instance_id: str) -> Iterator[Held]:
        """Keep all operations off an instance for the length of the block, which has to be short: they wait for it.

        Nothing of it is left after a kill, for it is never committed. Raises `Conflict` if an operation holds it.
        """
        with self._database.writing() as connection:
            lock = INSTANCE_LOCKS.c.instance_id == instance_id
            if connection.execute(sa.select(INSTANCE_LOCKS.c.operation_id).where(lock)).first() is not None:
                raise Conflict(f"An operation is changing instance {instance_id}.")
            connection.execute(sa.insert(INSTANCE_LOCKS).values(instance_id=instance_id, operation_id=_NO_ONE))
            yield Held(connection, instance_id)
            connection.execute(sa.delete(INSTANCE_LOCKS).where(lock))


def _owners(connection: sa.Connection, snapshot_ids: Collection[str]) -> dict[str, Owner]:
    ended, projects, busy, rows = defaultdict(list), dict[str, str](), set(), {}
    for some in _portions(snapshot_ids):
        # Operations first: what is accepted after this look shows in the status that is read then.
        operations = (
            sa.select(
                OPERATIONS.c.snapshot_id,
                OPERATIONS.c.project_id,
                OPERATIONS.c.state,
                OPERATIONS.c.finished_at,
                INSTANCE_LOCKS.c.operation_id,
            )
            .outerjoin(INSTANCE_LOCKS, INSTANCE_LOCKS.c.operation_id == OPERATIONS.c.id)
            .where(OPERATIONS.c.snapshot_id.in_(some))
        )
        for snapshot_id, project_id, state, finished_at, holding in connection.execute(operations):
            projects[snapshot_id] = project_id
            if state not in _FINAL or holding is not None:
                busy.add(snapshot_id)
            if finished_at is not None:
                ended[snapshot_id].append(finished_at)
        snapshots = sa.select(SNAPSHOTS).where(SNAPSHOTS.c.id.in_(some))
        for row in connection.execute(snapshots).mappings():
            rows[row["id"]], projects[row["id"]] = snapshot_from_row(row), row["project_id"]
    return {
        one: Owner(rows.get(one), projects.get(one), max(ended[one], default=None), one in busy)
        for one in set(snapshot_ids)
    }


def _portions(ids: Collection[str]) -> Iterator[list[str]]:
    ordered = sorted(set(ids))
    for start in range(0, len(ordered), _AT_A_TIME):
        yield ordered[start : start + _AT_A_TIME]
