"""stillframe instance start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillframe.cli.command import Command

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


class Start(Command):
    """Start an instance; refused while a restore fences it."""

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = super().get_parser(prog_name)
        parser.add_argument("instance", metavar="INSTANCE", help="Instance, by id or name.")
        return parser

    def take_action(self, parsed_args: Namespace) -> None:
        """See `cliff`."""
        client = self.client()
        client.start(client.find_instance(parsed_args.instance)["id"])
