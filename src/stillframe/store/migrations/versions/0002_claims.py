"""Claims: who works on an operation, until when, and for the how-manieth time it was taken up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mariadb", "mysql")
NAME = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
OPTIONS = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("default_charset", "utf8mb4"), ("collate", "utf8mb4_nopad_bin"))
}

# What the release before writes must fit: it does not know these columns, so each has a default or may be missing.
COLUMNS = (
    sa.Column("worker", NAME, nullable=True),
    sa.Column("generation", sa.Integer(), nullable=False, server_default="0"),
    sa.Column("claimed_until", TIME, nullable=True),
    sa.Column("places", sa.JSON(none_as_null=True), nullable=True),
)


def upgrade() -> None:
    there = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("operations")}
    for column in COLUMNS:
        if column.name not in there:
            op.add_column("operations", column.copy())
    op.create_table(
        "turnstile",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_turnstile")),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_index(op.f("ix_operations_state_deadline"), "operations", ["state", "deadline"], if_not_exists=True)


def downgrade() -> None:
    op.drop_index(op.f("ix_operations_state_deadline"), "operations", if_exists=True)
    op.drop_table("turnstile", if_exists=True)
    for column in reversed(COLUMNS):
        op.drop_column("operations", column.name)
