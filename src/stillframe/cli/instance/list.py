"""stillframe instance list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillframe.cli.command import Lister, Rows
from stillframe.cli.instance.views import view

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


class List(Lister):
    """List instances."""

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = super().get_parser(prog_name)
        parser.add_argument("--all-projects", action="store_true", help="Those of all projects (administrators).")
        return parser

    def take_action(self, parsed_args: Namespace) -> Rows:
        """See `cliff`."""
        query = {"all_tenants": "true" if parsed_args.all_projects else None}
        found = [view(server) for server in self.client().instances(query)]
        columns = ("id", "name", "status", "project_id")
        return columns, [[instance[column] for column in columns] for instance in found]
