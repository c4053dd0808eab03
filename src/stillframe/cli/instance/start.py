"""stillframe instance start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillframe.cli.command import Command
from stillframe.cli.instance.switching import add_wait_option, wait_for

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


class Start(Command):
    """Start an instance; refused while a restore fences it."""

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = super().get_parser(prog_name)
        parser.add_argument("instance", metavar="INSTANCE", help="Instance, by id or name.")
        add_wait_option(parser)
        return parser

    def take_action(self, parsed_args: Namespace) -> None:
        """See `cliff`."""
        client = self.client()
        instance_id = client.find_instance(parsed_args.instance)["id"]
        client.start(instance_id)
        if parsed_args.wait:
            wait_for(client, instance_id, "ACTIVE")
