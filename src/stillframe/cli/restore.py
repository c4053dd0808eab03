"""stillframe snapshot restore, retry and rollback: what puts volumes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from stillframe.cli.snapshot import ShowingSnapshot, add_snapshot
from stillframe.cli.watching import add_wait_option

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Mapping

    from stillframe.cli.command import Fields


class Restore(ShowingSnapshot):
    """Put all volumes of an instance back to an instance snapshot; the instance must be off, or give --force."""

    #: What goes into the request.
    how: ClassVar[Mapping[str, bool]] = {}
    title = "restoring"

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = add_snapshot(super().get_parser(prog_name))
        parser.add_argument(
            "--force", action="store_true", help="If the instance runs, shut it down, and start it again afterwards."
        )
        add_wait_option(parser)
        return parser

    def take_action(self, parsed_args: Namespace) -> Fields:
        """See `cliff`."""
        client = self.client()
        snapshot = client.find_snapshot(parsed_args.snapshot)
        snapshot_id: str = snapshot["id"]
        force = parsed_args.force
        task_uri, notice = client.restore(snapshot["instance_id"], snapshot_id, force=force, **self.how)
        if notice:
            self.app.LOG.warning("%s", notice)
        return self.outcome(parsed_args, client, snapshot_id, task_uri, f"{self.title} {snapshot['name']}")


class Retry(Restore):
    """Restore the volumes whose restore failed (in status restore-error)."""

    how: ClassVar = {"retry": True}
    title = "retrying"


class Rollback(Restore):
    """Put all volumes back to what they were before the restore that failed (in restore-error or rollback-error)."""

    how: ClassVar = {"rollback": True}
    title = "rolling back"
