"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mariadb", "mysql")


def text(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


ID, NAME, WORD = text(64), text(255), text(32)
OPTIONS = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("default_charset", "utf8mb4"), ("collate", "utf8mb4_nopad_bin"))
}

# MariaDB commits each statement by itself: what an upgrade had made when it was killed is there the next time.


def upgrade() -> None:
    op.create_table(
        "fences",
        sa.Column("instance_id", NAME, nullable=False),
        sa.Column("snapshot_id", ID, nullable=False),
        sa.Column("was_active", sa.Boolean(), nullable=True),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_fences")),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "instance_locks",
        sa.Column("instance_id", NAME, nullable=False),
        sa.Column("operation_id", ID, nullable=False),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_instance_locks")),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "instance_snapshots",
        sa.Column("id", ID, nullable=False),
        sa.Column("project_id", NAME, nullable=False),
        sa.Column("user_id", NAME, nullable=False),
        sa.Column("instance_id", NAME, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("status", WORD, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=True),
        sa.Column("task_id", ID, nullable=True),
        sa.Column("action", WORD, nullable=True),
        sa.Column("snapshots", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("temp_snapshots", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("failed_snapshots", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("fault", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("consistency", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance_snapshots")),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_index(
        op.f("ix_instance_snapshots_created_at_id"), "instance_snapshots", ["created_at", "id"], if_not_exists=True
    )
    op.create_index(
        op.f("ix_instance_snapshots_instance_id"), "instance_snapshots", ["instance_id"], if_not_exists=True
    )
    op.create_index(
        op.f("ix_instance_snapshots_project_id_created_at_id"),
        "instance_snapshots",
        ["project_id", "created_at", "id"],
        if_not_exists=True,
    )
    op.create_table(
        "operations",
        sa.Column("id", ID, nullable=False),
        sa.Column("action", WORD, nullable=False),
        sa.Column("snapshot_id", ID, nullable=False),
        sa.Column("project_id", NAME, nullable=False),
        sa.Column("instance_id", NAME, nullable=False),
        sa.Column("request_id", NAME, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("deadline", TIME, nullable=False),
        sa.Column("finished_at", TIME, nullable=True),
        sa.Column("arguments", sa.JSON(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("committed", sa.Boolean(), nullable=False),
        sa.Column("record", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_index(op.f("ix_operations_finished_at"), "operations", ["finished_at"], if_not_exists=True)
    op.create_index(op.f("ix_operations_snapshot_id"), "operations", ["snapshot_id"], if_not_exists=True)
    op.create_index(op.f("ix_operations_state_created_at"), "operations", ["state", "created_at"], if_not_exists=True)


def downgrade() -> None:
    for name in ("operations", "instance_snapshots", "instance_locks", "fences"):
        op.drop_table(name, if_exists=True)
