"""stillframe snapshot set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillframe.cli.command import Command
from stillframe.cli.exit_codes import CommandFailed, ExitCode

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


class Set(Command):
    """Change the name or the description of an instance snapshot."""

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = super().get_parser(prog_name)
        parser.add_argument("snapshot", metavar="SNAPSHOT", help="Instance snapshot, by id or name.")
        parser.add_argument("--name", help="New name.")
        parser.add_argument("--description", help="New description; may be empty.")
        return parser

    def take_action(self, parsed_args: Namespace) -> None:
        """See `cliff`."""
        given = {"name": parsed_args.name, "description": parsed_args.description}
        changes = {key: value for key, value in given.items() if value is not None}
        if not changes:
            raise CommandFailed(ExitCode.USAGE, "nothing to change: give --name, --description or both")
        client = self.client()
        client.update(client.find_snapshot(parsed_args.snapshot)["id"], changes)
