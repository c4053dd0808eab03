"""stillframe snapshot delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillframe.cli.command import Command
from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.cli.watching import add_wait_option, wait

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


class Delete(Command):
    """Delete instance snapshots with everything that belongs to them."""

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = super().get_parser(prog_name)
        parser.add_argument("snapshots", metavar="SNAPSHOT", nargs="+", help="Instance snapshot, by id or name.")
        add_wait_option(parser)
        return parser

    def take_action(self, parsed_args: Namespace) -> int:
        """See `cliff`: one that cannot be deleted does not keep the others; the first failure's code is returned."""
        client = self.client()
        codes: list[ExitCode] = []
        for reference in parsed_args.snapshots:
            try:
                snapshot_id: str = client.find_snapshot(reference)["id"]
                task_uri = client.delete(snapshot_id)
                if parsed_args.wait:
                    wait(client, snapshot_id, task_uri, f"deleting {reference}")
            except CommandFailed as failure:
                if len(parsed_args.snapshots) == 1:
                    raise
                self.app.LOG.error("%s: %s", reference, failure)  # noqa: TRY400  # the line says it all
                codes.append(failure.code)
        return int(codes[0]) if codes else 0
