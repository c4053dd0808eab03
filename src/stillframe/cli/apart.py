"""What api and worker have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillframe.cli.exit_codes import CommandFailed, ExitCode

if TYPE_CHECKING:
    from stillframe.settings import Settings


def require_server(settings: Settings) -> None:
    """Raises `CommandFailed` for a database that is for one process."""
    if settings.database.url.startswith("sqlite"):
        raise CommandFailed(
            ExitCode.USAGE,
            "the API and the worker run apart only on PostgreSQL or MariaDB ([database] connection); "
            "with SQLite use 'stillframe serve'",
        )
