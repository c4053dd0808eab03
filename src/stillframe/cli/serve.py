"""stillframe serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillframe.cli.command import Command

if TYPE_CHECKING:
    from argparse import Namespace


class Serve(Command):
    """Serve the API and work on what it accepts, in one process."""

    def take_action(self, parsed_args: Namespace) -> None:  # noqa: ARG002  # it has none
        """See `cliff`."""
        from stillframe.cli.running import run  # noqa: PLC0415  # brings the whole service along

        run(self.settings(), lambda line: print(line, file=self.app.stdout, flush=True), serve=True, work=True)
