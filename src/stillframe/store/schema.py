"""Bringing a database's schema to this release's, and saying whether it is there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from stillframe.store.database import Database

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_VERSION_TABLE: Final = "stillframe_version"


def upgrade(database: Database) -> None:
    """Apply every migration that is missing; repeating it does nothing."""
    with database.writer.connect() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def current(database: Database) -> str | None:
    """The revision that the database is at, or None for one without our tables."""
    with database.reader.connect() as connection:
        if not sa.inspect(connection).has_table(_VERSION_TABLE):
            return None
        context = MigrationContext.configure(connection, opts={"version_table": _VERSION_TABLE})
        return context.get_current_revision()


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
