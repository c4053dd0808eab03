"""The tables of the store, for SQLite, PostgreSQL and MariaDB alike."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

METADATA: Final = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Times are UTC without a zone; MariaDB keeps microseconds only when told to.
TIME: Final = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
ID: Final = sa.String(64)

SNAPSHOTS: Final = sa.Table(
    "instance_snapshots",
    METADATA,
    sa.Column("id", ID, primary_key=True),
    sa.Column("project_id", sa.String(255), nullable=False),
    sa.Column("user_id", sa.String(255), nullable=False),
    sa.Column("instance_id", sa.String(255), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("updated_at", TIME),
    sa.Column("task_id", ID),
    sa.Column("action", sa.String(32)),
    sa.Column("snapshots", sa.JSON(none_as_null=True)),
    sa.Column("temp_snapshots", sa.JSON(none_as_null=True)),
    sa.Column("failed_snapshots", sa.JSON(none_as_null=True)),
    sa.Column("fault", sa.JSON(none_as_null=True)),
    sa.Column("consistency", sa.JSON(none_as_null=True)),
    # The default order of the list, newest first, within a project and over all.
    sa.Index(None, "project_id", "created_at", "id"),
    sa.Index(None, "created_at", "id"),
    sa.Index(None, "instance_id"),
)

OPERATIONS: Final = sa.Table(
    "operations",
    METADATA,
    sa.Column("id", ID, primary_key=True),
    sa.Column("action", sa.String(32), nullable=False),
    # No foreign key: the record of a deletion outlives the snapshot, so that its progress can still be read.
    sa.Column("snapshot_id", ID, nullable=False, index=True),
    sa.Column("project_id", sa.String(255), nullable=False),
    sa.Column("instance_id", sa.String(255), nullable=False),
    sa.Column("request_id", sa.String(255), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("deadline", TIME, nullable=False),
    sa.Column("finished_at", TIME),
    sa.Column("arguments", sa.JSON, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("progress", sa.Integer, nullable=False),
    sa.Column("committed", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("record", sa.JSON(none_as_null=True)),
    sa.Index(None, "state", "created_at"),
    sa.Index(None, "finished_at"),
)

# A row is the right to change an instance: its primary key is what makes two operations exclude each other.
INSTANCE_LOCKS: Final = sa.Table(
    "instance_locks",
    METADATA,
    sa.Column("instance_id", sa.String(255), primary_key=True),
    sa.Column("operation_id", ID, nullable=False),
)

# A row says that an instance must not run; it stays while its volumes are not whole.
FENCES: Final = sa.Table(
    "fences",
    METADATA,
    sa.Column("instance_id", sa.String(255), primary_key=True),
    sa.Column("snapshot_id", ID, nullable=False),
    # Whether it ran before the restore, hence is started again after; unknown until it was looked at.
    sa.Column("was_active", sa.Boolean(create_constraint=False)),
)
