"""stillframe instance list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillframe.cli.command import Lister, Rows
from stillframe.cli.instance.views import KEYS, LISTED, view

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence


class List(Lister):
    """List instances."""

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = super().get_parser(prog_name)
        parser.add_argument("--all-projects", action="store_true", help="Those of all projects (administrators).")
        return parser

    def columns(self, parsed_args: Namespace) -> Sequence[str]:  # noqa: ARG002  # they are always the same
        """See `Lister`."""
        return KEYS

    def take_action(self, parsed_args: Namespace) -> Rows:
        """See `cliff`."""
        query = {"all_tenants": "true" if parsed_args.all_projects else None}
        found = [view(server) for server in self.client().instances(query)]
        columns = KEYS if parsed_args.columns else LISTED + (("project_id",) if parsed_args.all_projects else ())
        return columns, [[instance[column] for column in columns] for instance in found]
