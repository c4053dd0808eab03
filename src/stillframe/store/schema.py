"""Bringing a database's schema to this release's, and saying whether it is there."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from stillframe.domain.errors import Conflict, Refused, Unavailable
from stillframe.store.error_translation import translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stillframe.store.database import Database

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
# The flow engine keeps its tables in the same database, and Alembic's default name for its own revision.
VERSION_TABLE: Final = "stillframe_version"
# Seconds that a change of a table waits for transactions that use it: whoever comes after it waits for as long.
_TIMEOUT: Final = 10
_HASTE: Final[Mapping[str, str]] = {
    "postgresql": f"SET lock_timeout = '{_TIMEOUT}s'",
    "mysql": f"SET SESSION lock_wait_timeout = {_TIMEOUT}",
}
# The server takes it back with the connection, however that ends.
_TURN: Final[Mapping[str, str]] = {
    "postgresql": "SELECT 1 FROM pg_advisory_lock(hashtext('stillframe-upgrade'))",
    "mysql": "SELECT GET_LOCK(CONCAT('stillframe-up-', MD5(DATABASE())), 600)",
}


@contextmanager
def alone(database: Database) -> Iterator[None]:
    """Let nobody else upgrade the same database of a server until the end of the block, and wait for who does.

    A file is left to the one process that works on it.
    """
    if database.is_file:
        yield
        return
    with _session(database, _TURN):
        yield


def upgrade(database: Database) -> None:
    """Apply every migration that is missing; repeating it does nothing, and so a broken one is taken up again.

    Raises `Refused` for the database of a later release, `Unavailable` if its tables are in use for too long.
    """
    try:
        with _session(database, _HASTE) as connection:
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    except CommandError as error:
        raise Refused(f"The database cannot be brought to this release's schema: {error}") from None
    except Conflict:
        raise Unavailable(
            f"The tables were in use for more than {_TIMEOUT} s: a process is in the middle of a long transaction, or "
            "suspended in one. Let it go on or end it, and repeat the upgrade; it takes up where it was."
        ) from None


@contextmanager
def _session(database: Database, first: Mapping[str, str]) -> Iterator[sa.Connection]:
    """A connection that begins with the statement for its kind of server, and ends with what that set."""
    with translated(), database.writer.connect() as connection:
        kind = connection.dialect.name
        statement = first.get("mysql" if kind == "mariadb" else kind)
        if statement is not None:
            connection.exec_driver_sql(statement)
            connection.commit()
            connection.detach()
        yield connection


def current(database: Database) -> str | None:
    """The revision that the database is at, or None for one without our tables."""
    with database.reading() as connection:
        if not sa.inspect(connection).has_table(VERSION_TABLE):
            return None
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        return context.get_current_revision()


def fits(database: Database) -> bool:
    """Whether this release works with a database: it is at its revision, or at that of a later release.

    Each release's migrations only add, and only what the release before can do without: while a cloud is upgraded,
    its old processes go on beside the new ones.
    """
    revision = current(database)
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    return revision is not None and (revision == head() or revision not in known)


def head() -> str:
    """The revision that this release needs."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise RuntimeError("the package was built without its migrations")
    return revision


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config
