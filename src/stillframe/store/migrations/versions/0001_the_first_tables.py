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


def upgrade() -> None:
    op.create_table(
        "fences",
        sa.Column("instance_id", sa.String(length=255), nullable=False),
        sa.Column("snapshot_id", sa.String(length=64), nullable=False),
        sa.Column("was_active", sa.Boolean(), nullable=True),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_fences")),
    )
    op.create_table(
        "instance_locks",
        sa.Column("instance_id", sa.String(length=255), nullable=False),
        sa.Column("operation_id", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_instance_locks")),
    )
    op.create_table(
        "instance_snapshots",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("instance_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=True),
        sa.Column("task_id", sa.String(length=64), nullable=True),
        sa.Column("action", sa.String(length=32), nullable=True),
        sa.Column("snapshots", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("temp_snapshots", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("failed_snapshots", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("fault", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("consistency", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance_snapshots")),
    )
    op.create_index(
        op.f("ix_instance_snapshots_created_at_id"), "instance_snapshots", ["created_at", "id"], unique=False
    )
    op.create_index(op.f("ix_instance_snapshots_instance_id"), "instance_snapshots", ["instance_id"], unique=False)
    op.create_index(
        op.f("ix_instance_snapshots_project_id_created_at_id"),
        "instance_snapshots",
        ["project_id", "created_at", "id"],
        unique=False,
    )
    op.create_table(
        "operations",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("snapshot_id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("instance_id", sa.String(length=255), nullable=False),
        sa.Column("request_id", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("deadline", TIME, nullable=False),
        sa.Column("finished_at", TIME, nullable=True),
        sa.Column("arguments", sa.JSON(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("committed", sa.Boolean(), nullable=False),
        sa.Column("record", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
    )
    op.create_index(op.f("ix_operations_finished_at"), "operations", ["finished_at"], unique=False)
    op.create_index(op.f("ix_operations_snapshot_id"), "operations", ["snapshot_id"], unique=False)
    op.create_index(op.f("ix_operations_state_created_at"), "operations", ["state", "created_at"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_operations_state_created_at"), table_name="operations")
    op.drop_index(op.f("ix_operations_snapshot_id"), table_name="operations")
    op.drop_index(op.f("ix_operations_finished_at"), table_name="operations")
    op.drop_table("operations")
    op.drop_index(op.f("ix_instance_snapshots_project_id_created_at_id"), table_name="instance_snapshots")
    op.drop_index(op.f("ix_instance_snapshots_instance_id"), table_name="instance_snapshots")
    op.drop_index(op.f("ix_instance_snapshots_created_at_id"), table_name="instance_snapshots")
    op.drop_table("instance_snapshots")
    op.drop_table("instance_locks")
    op.drop_table("fences")
