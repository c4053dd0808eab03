"""stillframe instance stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillframe.cli.command import Command

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


class Stop(Command):
    """Shut an instance down: gracefully, then hard after the configured time."""

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = super().get_parser(prog_name)
        parser.add_argument("instance", metavar="INSTANCE", help="Instance, by id or name.")
        return parser

    def take_action(self, parsed_args: Namespace) -> None:
        """See `cliff`."""
        client = self.client()
        client.stop(client.find_instance(parsed_args.instance)["id"])
