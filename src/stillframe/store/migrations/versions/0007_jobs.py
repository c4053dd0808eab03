"""What comes round by time, and which worker is at it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def _text(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


OPTIONS: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("default_charset", "utf8mb4"), ("collate", "utf8mb4_nopad_bin"))
}


def upgrade() -> None:
    if sa.inspect(op.get_bind()).has_table("jobs"):
        return
    op.create_table(
        "jobs",
        sa.Column("name", _text(64), nullable=False),
        sa.Column("interval_seconds", sa.Integer, nullable=False),
        sa.Column("known_since", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.Column("succeeded_at", TIME),
        sa.Column("counts", sa.JSON(none_as_null=True)),
        sa.Column("claim", _text(64)),
        sa.Column("worker", _text(255)),
        sa.Column("renewed_at", TIME),
        sa.Column("claimed_until", TIME),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_jobs")),
        **OPTIONS,
    )


def downgrade() -> None:
    op.drop_table("jobs")
