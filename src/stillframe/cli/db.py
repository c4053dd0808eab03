"""stillframe db: look after the database; and what the program says of one that it cannot use."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stillframe.cli.command import Command
from stillframe.cli.exit_codes import CommandFailed, ExitCode, usable_settings
from stillframe.domain.errors import Damaged, OlderDatabase, StillframeError, Unavailable

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator


class CheckDatabase(Command):
    """Say whether this release can work with the database's schema; exit code 1 if it has to be upgraded."""

    def take_action(self, parsed_args: Namespace) -> int:  # noqa: ARG002  # it has none
        """See `cliff`."""
        from stillframe.store import schema  # noqa: PLC0415
        from stillframe.store.database import connect, parsed  # noqa: PLC0415

        settings = self.settings()
        with usable_settings(), answering_database():
            current, fits = None, False
            # Looking at an SQLite file that is not there would make it.
            url = parsed(settings.database.url)
            if url.get_backend_name() != "sqlite" or Path(url.database or "").exists():
                database = connect(settings.database.url)
                current, fits = schema.current(database), schema.fits(database)
                database.close()
        head = schema.head()
        if current == head:
            self.app.stdout.write(f"the database is at this release's revision {head}\n")
            return ExitCode.OK
        if fits:
            self.app.stdout.write(
                f"the database is at revision {current} of a later release, which this one works with\n"
            )
            return ExitCode.OK
        found = f"is at revision {current}" if current else "has no tables of ours yet"
        self.app.stdout.write(f"the database {found}, and this release needs {head}; run: stillframe db upgrade\n")
        return ExitCode.FAILED


class UpgradeDatabase(Command):
    """Bring the database to this release's schema; repeating it does nothing."""

    def take_action(self, parsed_args: Namespace) -> None:  # noqa: ARG002  # it has none
        """See `cliff`."""
        from stillframe import main  # noqa: PLC0415  # brings the whole service along
        from stillframe.store import schema  # noqa: PLC0415

        settings = self.settings()
        with usable_settings(), answering_database():
            database = main.open_database(settings)
            before = schema.current(database)
            main.upgrade_database(database)
            after = schema.current(database)
            database.close()
        self.app.stdout.write(
            f"the database is at revision {after}\n" if before == after else f"upgraded from {before} to {after}\n"
        )


@contextmanager
def answering_database() -> Iterator[None]:
    """A database that does not answer may do so later."""
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  # most commands do without

    try:
        yield
    except (SQLAlchemyError, Unavailable) as error:
        raise CommandFailed(ExitCode.UNAVAILABLE, f"the database cannot be used: {reason(error)}") from None


@contextmanager
def remembered_database() -> Iterator[None]:
    """Whoever remembers another database than the one that is there must not work on it."""
    try:
        yield
    except (OlderDatabase, Damaged) as error:
        raise CommandFailed(ExitCode.REFUSED, error.message) from None


def reason(error: BaseException) -> str:
    """What the database itself said about what went wrong, where it did."""
    from stillframe.store.error_translation import words  # noqa: PLC0415  # most commands do without

    return (error.detail if isinstance(error, StillframeError) else words(error)) or str(error)
