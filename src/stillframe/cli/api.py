"""stillframe api."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillframe.cli.apart import require_server
from stillframe.cli.command import Command

if TYPE_CHECKING:
    from argparse import Namespace


class Api(Command):
    """Serve the API and leave the work to 'stillframe worker'; needs PostgreSQL or MariaDB."""

    def take_action(self, parsed_args: Namespace) -> None:  # noqa: ARG002  # it has none
        """See `cliff`."""
        settings = self.settings()
        require_server(settings)
        from stillframe.cli.running import run  # noqa: PLC0415  # brings the whole service along

        run(settings, lambda line: print(line, file=self.app.stdout, flush=True), serve=True, work=False)
