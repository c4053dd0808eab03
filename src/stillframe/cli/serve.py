"""stillframe serve and api: processes that answer requests; `worker` is the one that only works."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from stillframe.cli.command import Command
from stillframe.cli.exit_codes import CommandFailed, ExitCode

if TYPE_CHECKING:
    from argparse import Namespace


class Process(Command):
    """A command that runs until a signal ends it: `serve` says whether it answers, `work` whether it works."""

    serve: ClassVar[bool]
    work: ClassVar[bool]

    def take_action(self, parsed_args: Namespace) -> None:  # noqa: ARG002  # it has none
        """See `cliff`."""
        settings = self.settings()
        if not (self.serve and self.work) and settings.database.url.startswith("sqlite"):
            raise CommandFailed(
                ExitCode.USAGE,
                "the API and the worker run apart only on PostgreSQL or MariaDB ([database] connection); "
                "with SQLite use 'stillframe serve'",
            )
        from stillframe.cli.running import run  # noqa: PLC0415  # brings the whole service along

        run(
            settings,
            lambda line: print(line, file=self.app.stdout, flush=True),
            serve=self.serve,
            work=self.work,
        )


class Serve(Process):
    """Serve the API and work on what it accepts, in one process."""

    serve = True
    work = True


class Api(Process):
    """Serve the API and leave the work to 'stillframe worker'; needs PostgreSQL or MariaDB."""

    serve = True
    work = False
