"""Looking at instance snapshots, and renaming them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from stillframe.domain.errors import InvalidInput, NotFound
from stillframe.domain.status import BUSY, Status, busy
from stillframe.store.error_translation import repeated
from stillframe.store.rows import fitting, not_before_creation, snapshot_from_row
from stillframe.store.tables import OPERATIONS, SNAPSHOTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stillframe.domain.snapshot import InstanceSnapshot
    from stillframe.store.database import Database

SORT_KEYS: Final[Mapping[str, sa.ColumnElement[Any]]] = {
    "id": SNAPSHOTS.c.id,
    "name": SNAPSHOTS.c.name,
    "status": SNAPSHOTS.c.status,
    "instance_id": SNAPSHOTS.c.instance_id,
    # In the order of their creation, which a clock that was set back does not tell.
    "created_at": SNAPSHOTS.c.sequence,
    # What never changed sorts by its creation, so that the order has no holes.
    "updated_at": sa.func.coalesce(SNAPSHOTS.c.updated_at, SNAPSHOTS.c.created_at),
}

FILTERS: Final = ("status", "instance_id", "name")


@dataclass(frozen=True, slots=True)
class Sort:
    """One key of an order."""

    key: str
    descending: bool = True


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Which instance snapshots to list, in which order, and from where on.

    `project_id` None means all projects. `marker` is the id of the last item of the page before.
    """

    project_id: str | None
    limit: int
    marker: str | None = None
    filters: Mapping[str, str] = field(default_factory=dict)
    sort: Sequence[Sort] = (Sort("created_at"),)


class SnapshotStore:
    """The rows of instance snapshots, for everything but the changes of their status."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, snapshot_id: str) -> InstanceSnapshot:
        """One instance snapshot; raises `NotFound`."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(SNAPSHOTS).where(SNAPSHOTS.c.id == snapshot_id)).mappings().first()
        if row is None:
            raise _missing(snapshot_id)
        return snapshot_from_row(row)

    def ids(self) -> frozenset[str]:
        """The ids of all instance snapshots, to tell leftovers from copies that belong to somebody."""
        with self._database.reading() as connection:
            return frozenset(connection.execute(sa.select(SNAPSHOTS.c.id)).scalars())

    def ids_naming(self, copy_id: str, project_id: str | None) -> Sequence[str]:
        """The ids of instance snapshots (of a project, unless that is None) in whose maps a volume snapshot's id is."""
        maps = (SNAPSHOTS.c.snapshots, SNAPSHOTS.c.temp_snapshots)
        named = sa.or_(*(sa.cast(column, sa.Text).contains(copy_id, autoescape=True) for column in maps))
        statement = sa.select(SNAPSHOTS.c.id).where(named)
        if project_id is not None:
            statement = statement.where(SNAPSHOTS.c.project_id == project_id)
        with self._database.reading() as connection:
            return connection.execute(statement).scalars().all()

    def list(self, query: ListQuery) -> list[InstanceSnapshot]:
        """One page; raises `InvalidInput` for a marker that is not visible to the caller."""
        sort = [*query.sort]
        if all(item.key != "id" for item in sort):
            # The id makes the order total: without it, pages would lose or repeat rows with equal keys.
            sort.append(Sort("id", sort[-1].descending if sort else True))
        statement = sa.select(SNAPSHOTS)
        if query.project_id is not None:
            statement = statement.where(SNAPSHOTS.c.project_id == query.project_id)
        for name, value in query.filters.items():
            statement = statement.where(SNAPSHOTS.c[name] == value)
        columns = [SORT_KEYS[item.key] for item in sort]
        with self._database.reading() as connection:
            if query.marker is not None:
                statement = statement.where(_after(sort, self._marker_values(connection, query, sort)))
            ordered = [c.desc() if item.descending else c.asc() for c, item in zip(columns, sort, strict=True)]
            rows = connection.execute(statement.order_by(*ordered).limit(query.limit)).mappings().all()
        return [snapshot_from_row(row) for row in rows]

    @repeated
    def rename(self, snapshot_id: str, changes: Mapping[str, str], now: datetime) -> None:
        """Change `name` and/or `description`; raises `NotFound`, and `Conflict` while an operation has the snapshot."""
        here = SNAPSHOTS.c.id == snapshot_id
        with self._database.writing() as connection:
            values = {**fitting(SNAPSHOTS, changes), "updated_at": not_before_creation(now)}
            stable = sa.and_(here, SNAPSHOTS.c.status.not_in(sorted(BUSY)))
            if connection.execute(sa.update(SNAPSHOTS).where(stable).values(**values)).rowcount == 0:
                status = connection.execute(sa.select(SNAPSHOTS.c.status).where(here)).scalar()
                raise _missing(snapshot_id) if status is None else busy(Status(status))

    def _marker_values(self, connection: sa.Connection, query: ListQuery, sort: Sequence[Sort]) -> Sequence[Any]:
        place = place_of(connection, query.marker or "", query.project_id)
        if place is None:
            # Deleted since the page before was read.
            deleted = sa.select(OPERATIONS.c.place).where(
                OPERATIONS.c.snapshot_id == query.marker, OPERATIONS.c.place.is_not(None)
            )
            if query.project_id is not None:
                deleted = deleted.where(OPERATIONS.c.project_id == query.project_id)
            place = connection.execute(deleted).scalar()
        if place is None:
            raise InvalidInput(f"there is no instance snapshot '{query.marker}' to go on from", "marker")
        moment = datetime.fromisoformat(place["updated_at"])
        return [moment if item.key == "updated_at" else place[item.key] for item in sort]


def place_of(connection: sa.Connection, snapshot_id: str, project_id: str | None = None) -> dict[str, Any] | None:
    """Where an instance snapshot (of a project, unless that is None) stands in lists: its value for each sort key."""
    columns = [column.label(key) for key, column in SORT_KEYS.items()]
    statement = sa.select(*columns).where(SNAPSHOTS.c.id == snapshot_id)
    if project_id is not None:
        statement = statement.where(SNAPSHOTS.c.project_id == project_id)
    row = connection.execute(statement).mappings().first()
    return None if row is None else {**row, "updated_at": row["updated_at"].isoformat()}


def _missing(snapshot_id: str) -> NotFound:
    return NotFound(f"Instance snapshot {snapshot_id} could not be found.")


def _after(sort: Sequence[Sort], values: Sequence[Any]) -> sa.ColumnElement[bool]:
    """The rows behind the marker: equal in the first keys and beyond it in the next one."""
    alternatives = []
    for position, item in enumerate(sort):
        column, value = SORT_KEYS[item.key], values[position]
        equal = [SORT_KEYS[before.key] == values[i] for i, before in enumerate(sort[:position])]
        beyond = column < value if item.descending else column > value
        alternatives.append(sa.and_(*equal, beyond))
    first, start = SORT_KEYS[sort[0].key], values[0]
    # The first key's bound follows from the rest; said outright, it lets the database use its index.
    bound = first <= start if sort[0].descending else first >= start
    return sa.and_(bound, sa.or_(*alternatives))
