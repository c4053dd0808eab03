"""stillframe snapshot progress."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from stillframe.cli.command import Fields, ShowOne, fields
from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.cli.watching import wait

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence


class Progress(ShowOne):
    """Show how far the latest operation on an instance snapshot is."""

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "snapshot", metavar="SNAPSHOT", help="Instance snapshot, by id or name; or the URI of a task."
        )
        parser.add_argument("--wait", action="store_true", help="Wait for the end, and fail if the operation does.")
        return parser

    def columns(self, parsed_args: Namespace) -> Sequence[str]:  # noqa: ARG002  # they are always the same
        """See `ShowOne`."""
        from stillframe.api.schemas import ProgressDetails  # noqa: PLC0415  # takes a while to load

        return tuple(ProgressDetails.model_fields)

    def take_action(self, parsed_args: Namespace) -> Fields:
        """See `cliff`."""
        client, reference = self.client(), parsed_args.snapshot
        if urlsplit(reference).scheme in ("http", "https"):
            task_uri, snapshot_id = reference, _snapshot_id(reference)
        else:
            snapshot = client.find_snapshot(reference)
            task_uri, snapshot_id = snapshot["task_uri"], snapshot["id"]
        if parsed_args.wait:
            wait(client, snapshot_id, task_uri, "waiting")
        return fields(client.progress(task_uri), parsed_args.columns)


def _snapshot_id(task_uri: str) -> str:
    found = parse_qs(urlsplit(task_uri).query).get("id")
    if not found:
        raise CommandFailed(ExitCode.USAGE, f"{task_uri} is not the URI of a task")
    return found[0]
