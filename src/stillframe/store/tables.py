"""The tables of the store, for SQLite, PostgreSQL and MariaDB alike."""

from __future__ import annotations

from typing import Any, Final

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


def _text(length: int) -> sa.String:
    """Text that is compared and sorted by code points, as SQLite does it, whatever the server's default is."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


# What a process of a release without numbers writes: newer than all that is numbered, until it is numbered itself.
UNNUMBERED: Final = 2**63 - 1

ID: Final = _text(64)
NAME: Final = _text(255)
WORD: Final = _text(32)

# The same on MariaDB; its other binary collation takes blanks at the end for nothing. Its tables keep transactions.
_OPTIONS: Final[dict[str, Any]] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("default_charset", "utf8mb4"), ("collate", "utf8mb4_nopad_bin"))
}

SNAPSHOTS: Final = sa.Table(
    "instance_snapshots",
    METADATA,
    sa.Column("id", ID, primary_key=True),
    sa.Column("project_id", NAME, nullable=False),
    sa.Column("user_id", NAME, nullable=False),
    sa.Column("instance_id", NAME, nullable=False),
    sa.Column("name", NAME, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("status", WORD, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("updated_at", TIME),
    sa.Column("task_id", ID),
    sa.Column("action", WORD),
    sa.Column("snapshots", sa.JSON(none_as_null=True)),
    sa.Column("temp_snapshots", sa.JSON(none_as_null=True)),
    sa.Column("failed_snapshots", sa.JSON(none_as_null=True)),
    sa.Column("fault", sa.JSON(none_as_null=True)),
    sa.Column("consistency", sa.JSON(none_as_null=True)),
    # The order in which they came to be, whatever a clock said then; see `stillframe.store.numbering`.
    sa.Column("sequence", sa.BigInteger, nullable=False, server_default=str(UNNUMBERED)),
    sa.Column("minimum_consistency", WORD),
    # The volumes that a failed restore did not touch: they are what their safety copies are.
    sa.Column("untouched", sa.JSON(none_as_null=True)),
    # The default order of the list, newest first, within a project and over all.
    sa.Index(None, "project_id", "sequence", "id"),
    sa.Index(None, "sequence", "id"),
    # The same for processes of the release before.
    sa.Index(None, "project_id", "created_at", "id"),
    sa.Index(None, "created_at", "id"),
    sa.Index(None, "instance_id"),
    **_OPTIONS,
)

OPERATIONS: Final = sa.Table(
    "operations",
    METADATA,
    sa.Column("id", ID, primary_key=True),
    sa.Column("action", WORD, nullable=False),
    # No foreign key: the record of a deletion outlives the snapshot, so that its progress can still be read.
    sa.Column("snapshot_id", ID, nullable=False, index=True),
    sa.Column("project_id", NAME, nullable=False),
    sa.Column("instance_id", NAME, nullable=False),
    sa.Column("request_id", NAME, nullable=False),
    sa.Column("state", WORD, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("deadline", TIME, nullable=False),
    sa.Column("finished_at", TIME),
    sa.Column("arguments", sa.JSON, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("progress", sa.Integer, nullable=False),
    sa.Column("committed", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("record", sa.JSON(none_as_null=True)),
    # The claim: who works on it or did last, the number of the claim, and until when nobody else takes it up.
    sa.Column("worker", NAME),
    sa.Column("generation", sa.Integer, nullable=False, server_default="0"),
    sa.Column("claimed_until", TIME),
    # What limits of concurrency count it by, besides its project.
    sa.Column("places", sa.JSON(none_as_null=True)),
    # As that of instance snapshots.
    sa.Column("sequence", sa.BigInteger, nullable=False, server_default=str(UNNUMBERED), index=True),
    # Its own: that of the instance snapshot is the latest operation's, and goes with it.
    sa.Column("fault", sa.JSON(none_as_null=True)),
    # Where the instance snapshot stood in lists that a deletion took away: somebody may be reading them page by page.
    sa.Column("place", sa.JSON(none_as_null=True)),
    sa.Index(None, "state", "created_at"),
    sa.Index(None, "state", "deadline"),
    sa.Index(None, "finished_at"),
    **_OPTIONS,
)

# A row is the right to change an instance: its primary key is what makes two operations exclude each other.
INSTANCE_LOCKS: Final = sa.Table(
    "instance_locks",
    METADATA,
    sa.Column("instance_id", NAME, primary_key=True),
    sa.Column("operation_id", ID, nullable=False),
    **_OPTIONS,
)

# A row says that an instance must not run; it stays while its volumes are not whole.
FENCES: Final = sa.Table(
    "fences",
    METADATA,
    sa.Column("instance_id", NAME, primary_key=True),
    sa.Column("snapshot_id", ID, nullable=False),
    # Whether it ran before the restore, hence is started again after; unknown until it was looked at.
    sa.Column("was_active", sa.Boolean(create_constraint=False)),
    **_OPTIONS,
)

# Who works on operations: a row for each worker that runs, or has ended without taking its leave.
WORKERS: Final = sa.Table(
    "workers",
    METADATA,
    sa.Column("name", NAME, primary_key=True),
    sa.Column("started_at", TIME, nullable=False),
    sa.Column("seen_at", TIME, nullable=False),
    **_OPTIONS,
)

# Its one row is locked while claims are made, so that limits hold for all workers together. The table has the name that
# earlier releases, which may be at work beside this one, know it by.
CLAIM_LOCK: Final = sa.Table(
    "turnstile", METADATA, sa.Column("id", sa.Integer, primary_key=True, autoincrement=False), **_OPTIONS
)

# The history of the database: one began with it, and one whenever an older state that was put back was accepted.
EPOCHS: Final = sa.Table(
    "epochs",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("id", ID, nullable=False),
    **_OPTIONS,
)

# What each state folder remembers of the database, or is about to, and what it remembers until then.
MARKS: Final = sa.Table(
    "marks",
    METADATA,
    sa.Column("folder", ID, primary_key=True),
    sa.Column("mark", ID, nullable=False),
    sa.Column("earlier", ID),
    **_OPTIONS,
)

# Its one row says that this is an older state of the database, which nobody has accepted yet.
PUT_BACKS: Final = sa.Table(
    "put_backs",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("noticed_at", TIME, nullable=False),
    sa.Column("noticed_by", sa.Text, nullable=False),
    **_OPTIONS,
)

# What comes round by time: a row for each job, with the claim of the worker that is at it, and what came of it last.
JOBS: Final = sa.Table(
    "jobs",
    METADATA,
    sa.Column("name", ID, primary_key=True),
    # 0: whoever started last has switched it off.
    sa.Column("interval_seconds", sa.Integer, nullable=False),
    sa.Column("known_since", TIME, nullable=False),
    sa.Column("ended_at", TIME),
    sa.Column("succeeded_at", TIME),
    sa.Column("counts", sa.JSON(none_as_null=True)),
    # Another one for each claim, which an older state of the database that is put back cannot give out again.
    sa.Column("claim", ID),
    sa.Column("worker", NAME),
    sa.Column("renewed_at", TIME),
    sa.Column("claimed_until", TIME),
    **_OPTIONS,
)
