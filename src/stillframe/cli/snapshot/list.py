"""stillframe snapshot list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillframe.cli.command import Lister, Rows
from stillframe.cli.snapshot.views import COLUMNS, MORE_COLUMNS, keys, row

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence


class List(Lister):
    """List instance snapshots, the newest first."""

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = super().get_parser(prog_name)
        parser.add_argument("--instance", metavar="INSTANCE", help="Only those of this instance, by id or name.")
        parser.add_argument("--status", help="Only those in this status.")
        parser.add_argument("--name", help="Only those with this name.")
        parser.add_argument("--all-projects", action="store_true", help="Those of all projects (administrators).")
        parser.add_argument("--long", action="store_true", help="Show more columns.")
        parser.add_argument("--sort", metavar="KEY[:asc|desc],...", help="Order (default: created_at:desc).")
        parser.add_argument("--limit", type=int, metavar="N", help="Show at most N.")
        parser.add_argument("--marker", metavar="ID", help="Continue after the snapshot with this id.")
        return parser

    def columns(self, parsed_args: Namespace) -> Sequence[str]:  # noqa: ARG002  # they are always the same
        """See `Lister`."""
        return keys()

    def take_action(self, parsed_args: Namespace) -> Rows:
        """See `cliff`."""
        client = self.client()
        instance = client.find_instance(parsed_args.instance)["id"] if parsed_args.instance else None
        query = {
            "instance_id": instance,
            "status": parsed_args.status,
            "name": parsed_args.name,
            "all_tenants": "true" if parsed_args.all_projects else None,
            "sort": parsed_args.sort,
            "limit": parsed_args.limit,
            "marker": parsed_args.marker,
        }
        found = client.snapshots(query, one_page=parsed_args.limit is not None)
        columns = keys() if parsed_args.columns else COLUMNS + (MORE_COLUMNS if parsed_args.long else ())
        return columns, [row(snapshot, columns) for snapshot in found]
