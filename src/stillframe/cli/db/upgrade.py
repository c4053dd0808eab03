"""stillframe db upgrade."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillframe.cli.command import Command

if TYPE_CHECKING:
    from argparse import Namespace


class Upgrade(Command):
    """Bring the database to this release's schema; repeating it does nothing."""

    def take_action(self, parsed_args: Namespace) -> None:  # noqa: ARG002  # it has none
        """See `cliff`."""
        from stillframe import main  # noqa: PLC0415  # brings the whole service along
        from stillframe.cli.borders import answering_database, usable_settings  # noqa: PLC0415
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
