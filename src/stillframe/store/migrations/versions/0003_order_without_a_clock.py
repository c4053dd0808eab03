"""An order that no clock can turn round, the consistency asked for, and what a failed restore left untouched."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

WORD = sa.String(32).with_variant(sa.String(32, collation="C"), "postgresql")

# The release before does not know these columns: what it writes is the newest, until it is numbered.
UNNUMBERED = 2**63 - 1
COLUMNS = {
    "instance_snapshots": (
        ("sequence", sa.BigInteger(), str(UNNUMBERED)),
        ("minimum_consistency", WORD, None),
        ("untouched", sa.JSON(none_as_null=True), None),
    ),
    "operations": (("sequence", sa.BigInteger(), str(UNNUMBERED)),),
}
INDEXES = {
    "ix_instance_snapshots_project_id_sequence_id": ("instance_snapshots", ["project_id", "sequence", "id"]),
    "ix_instance_snapshots_sequence_id": ("instance_snapshots", ["sequence", "id"]),
    "ix_operations_sequence": ("operations", ["sequence"]),
}


def upgrade() -> None:
    for table, columns in COLUMNS.items():
        there = {column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)}
        for name, kind, default in columns:
            if name not in there:
                op.add_column(table, sa.Column(name, kind, nullable=default is None, server_default=default))
    for index, (table, keys) in INDEXES.items():
        op.create_index(op.f(index), table, keys, if_not_exists=True)
    for table in COLUMNS:
        number(table)


def number(name: str) -> None:
    """Number what there is by its age, as far as that can be told."""
    table = sa.table(name, sa.column("id"), sa.column("sequence"), sa.column("created_at"))
    bind = op.get_bind()
    numbered = sa.select(sa.func.max(table.c.sequence)).where(table.c.sequence < UNNUMBERED)
    last = bind.execute(numbered).scalar() or 0
    missing = sa.select(table.c.id).where(table.c.sequence == UNNUMBERED).order_by(table.c.created_at, table.c.id)
    rows = [{"here": id_, "number": last + place} for place, id_ in enumerate(bind.execute(missing).scalars(), 1)]
    if rows:
        one = table.c.id == sa.bindparam("here", type_=sa.String())
        bind.execute(sa.update(table).where(one).values(sequence=sa.bindparam("number", type_=sa.BigInteger())), rows)


def downgrade() -> None:
    for name, (table, _columns) in reversed(INDEXES.items()):
        op.drop_index(op.f(name), table, if_exists=True)
    for table, columns in COLUMNS.items():
        for name, _kind, _default in reversed(columns):
            op.drop_column(table, name)
