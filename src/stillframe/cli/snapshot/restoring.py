"""What restore, retry and rollback have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from stillframe.cli.command import Fields, ShowOne
from stillframe.cli.snapshot.views import keys, outcome
from stillframe.cli.watching import add_wait_option

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Mapping, Sequence


class Restoring(ShowOne):
    """A command that puts volumes back; `how` goes into the request."""

    how: ClassVar[Mapping[str, bool]] = {}
    title = ""

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = super().get_parser(prog_name)
        parser.add_argument("snapshot", metavar="SNAPSHOT", help="Instance snapshot, by id or name.")
        parser.add_argument(
            "--force", action="store_true", help="If the instance runs, shut it down, and start it again afterwards."
        )
        add_wait_option(parser)
        return parser

    def columns(self, parsed_args: Namespace) -> Sequence[str]:  # noqa: ARG002  # they are always the same
        """See `ShowOne`."""
        return keys()

    def take_action(self, parsed_args: Namespace) -> Fields:
        """See `cliff`."""
        client = self.client()
        snapshot = client.find_snapshot(parsed_args.snapshot)
        snapshot_id: str = snapshot["id"]
        force = parsed_args.force
        task_uri, notice = client.restore(snapshot["instance_id"], snapshot_id, force=force, **self.how)
        if notice:
            self.app.LOG.warning("%s", notice)
        return outcome(client, parsed_args, snapshot_id, task_uri, f"{self.title} {snapshot['name']}")
