"""stillframe snapshot create."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillframe.cli.command import Fields, ShowOne
from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.cli.snapshot.views import keys, outcome
from stillframe.cli.watching import add_wait_option
from stillframe.domain.snapshot import ConsistencyLevel

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from stillframe.cli.client import Client


class Create(ShowOne):
    """Take a snapshot of all volumes of an instance at one instant."""

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="Name of the new instance snapshot.")
        parser.add_argument("--instance", metavar="INSTANCE", required=True, help="Instance, by id or name.")
        parser.add_argument("--description", default="", help="What the snapshot is for.")
        parser.add_argument(
            "--volume",
            metavar="VOLUME",
            dest="volumes",
            action="append",
            default=[],
            help="Only this volume of the instance, by id, name or device; may be repeated (default: all).",
        )
        parser.add_argument(
            "--minimum-consistency",
            metavar="LEVEL",
            choices=[level.value for level in ConsistencyLevel],
            help="Lowest level that is good enough: application, filesystem, crash, none (default).",
        )
        add_wait_option(parser)
        return parser

    def columns(self, parsed_args: Namespace) -> Sequence[str]:  # noqa: ARG002  # they are always the same
        """See `ShowOne`."""
        return keys()

    def take_action(self, parsed_args: Namespace) -> Fields:
        """See `cliff`."""
        client = self.client()
        instance_id = client.find_instance(parsed_args.instance)["id"]
        volumes = _volume_ids(client, instance_id, parsed_args.volumes)
        snapshot_id, task_uri = client.create(
            instance_id, parsed_args.name, parsed_args.description, volumes, parsed_args.minimum_consistency
        )
        return outcome(client, parsed_args, snapshot_id, task_uri, f"taking {parsed_args.name}")


def _volume_ids(client: Client, instance_id: str, references: list[str]) -> list[str]:
    if not references:
        return []
    known: dict[str, str] = {}
    for volume in client.volumes({}):
        for attachment in volume["attachments"]:
            if attachment["server_id"] == instance_id:
                known |= dict.fromkeys((volume["id"], volume["name"], attachment["device"]), volume["id"])
    for reference in references:
        if reference not in known:
            raise CommandFailed(ExitCode.NOT_FOUND, f"the instance has no volume '{reference}'")
    return [known[reference] for reference in references]
