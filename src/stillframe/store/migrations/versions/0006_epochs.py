"""What tells an older state of the database from its latest one, and that one was put back."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")

OPTIONS: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("default_charset", "utf8mb4"), ("collate", "utf8mb4_nopad_bin"))
}


def upgrade() -> None:
    there = set(sa.inspect(op.get_bind()).get_table_names())
    if "epochs" not in there:
        op.create_table(
            "epochs",
            sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
            sa.Column("id", ID, nullable=False),
            sa.PrimaryKeyConstraint("number", name=op.f("pk_epochs")),
            **OPTIONS,
        )
    if "marks" not in there:
        op.create_table(
            "marks",
            sa.Column("folder", ID, nullable=False),
            sa.Column("mark", ID, nullable=False),
            sa.Column("earlier", ID),
            sa.PrimaryKeyConstraint("folder", name=op.f("pk_marks")),
            **OPTIONS,
        )
    if "put_backs" not in there:
        op.create_table(
            "put_backs",
            sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
            sa.Column("noticed_at", TIME, nullable=False),
            sa.Column("noticed_by", sa.Text, nullable=False),
            sa.PrimaryKeyConstraint("id", name=op.f("pk_put_backs")),
            **OPTIONS,
        )


def downgrade() -> None:
    for name in ("put_backs", "marks", "epochs"):
        op.drop_table(name)
