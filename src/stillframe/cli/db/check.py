"""stillframe db check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stillframe.cli.command import Command
from stillframe.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from argparse import Namespace


class Check(Command):
    """Say whether this release can work with the database's schema; exit code 1 if it has to be upgraded."""

    def take_action(self, parsed_args: Namespace) -> int:  # noqa: ARG002  # it has none
        """See `cliff`."""
        from stillframe.cli.borders import answering_database, usable_settings  # noqa: PLC0415
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
