"""Numbers that rows get in the order in which they come to be: clocks are set back, numbers are not."""

from __future__ import annotations

import sqlalchemy as sa

from stillframe.store.tables import UNNUMBERED


def next_number(connection: sa.Connection, table: sa.Table) -> int:
    """The number for a new row of a table with `sequence`, higher than that of every row that is there already.

    What a process of the release before has written meanwhile is numbered first. Two rows that come to be at one moment
    may get the same number.
    """
    numbered = sa.select(sa.func.max(table.c.sequence)).where(table.c.sequence < UNNUMBERED)
    last = int(connection.execute(numbered).scalar() or 0)
    missing = sa.select(table.c.id).where(table.c.sequence == UNNUMBERED).order_by(table.c.created_at, table.c.id)
    for id_ in connection.execute(missing).scalars().all():
        last += 1
        connection.execute(sa.update(table).where(table.c.id == id_).values(sequence=last))
    return last + 1
