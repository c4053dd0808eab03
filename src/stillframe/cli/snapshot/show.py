"""stillframe snapshot show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillframe.cli.command import Fields, ShowOne, fields
from stillframe.cli.snapshot.views import keys

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence


class Show(ShowOne):
    """Show an instance snapshot."""

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = super().get_parser(prog_name)
        parser.add_argument("snapshot", metavar="SNAPSHOT", help="Instance snapshot, by id or name.")
        return parser

    def columns(self, parsed_args: Namespace) -> Sequence[str]:  # noqa: ARG002  # they are always the same
        """See `ShowOne`."""
        return keys()

    def take_action(self, parsed_args: Namespace) -> Fields:
        """See `cliff`."""
        return fields(self.client().find_snapshot(parsed_args.snapshot), parsed_args.columns)
