"""Bringing a database's schema to this release's, and saying whether it is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from stillframe.domain.errors import Refused
from stillframe.store.border import translated

if TYPE_CHECKING:
    from stillframe.store.database import Database

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
# The flow engine keeps its tables in the same database, and Alembic's default name for its own revision.
VERSION_TABLE: Final = "stillframe_version"


def upgrade(database: Database) -> None:
    """Apply every migration that is missing; repeating it does nothing, and so a broken one is taken up again.

    Raises `Refused` for the database of a later release.
    """
    with translated(), database.writer.connect() as connection:
        config = _config()
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise Refused(f"The database cannot be brought to this release's schema: {error}") from None
        connection.commit()


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
