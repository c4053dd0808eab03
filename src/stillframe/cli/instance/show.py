"""stillframe instance show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillframe.cli.command import Fields, ShowOne, fields
from stillframe.cli.instance.views import KEYS, view

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence


class Show(ShowOne):
    """Show an instance and its volumes."""

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = super().get_parser(prog_name)
        parser.add_argument("instance", metavar="INSTANCE", help="Instance, by id or name.")
        return parser

    def columns(self, parsed_args: Namespace) -> Sequence[str]:  # noqa: ARG002  # they are always the same
        """See `ShowOne`."""
        return KEYS

    def take_action(self, parsed_args: Namespace) -> Fields:
        """See `cliff`."""
        client = self.client()
        shown = view(client.find_instance(parsed_args.instance))
        shown["volumes"] = {
            attachment["device"]: volume["id"]
            for volume in client.volumes({})
            for attachment in volume["attachments"]
            if attachment["server_id"] == shown["id"]
        } or dict.fromkeys(shown["volumes"], "")
        return fields(shown)
