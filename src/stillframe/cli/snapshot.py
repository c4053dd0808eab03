"""stillframe snapshot: take, show, change and delete instance snapshots; `restore` puts volumes back to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from stillframe.cli.command import Command, Fields, Lister, MapColumn, Rows, ShowOne, TimeColumn, fields
from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.cli.watching import add_wait_option, wait
from stillframe.domain.snapshot import ConsistencyLevel

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from stillframe.cli.client import Client

#: What a list shows: it fits into 80 columns.
COLUMNS: Final = ("id", "name", "status", "created_at")
MORE_COLUMNS: Final = ("instance_id", "description", "updated_at", "consistency", "fault", "project_id", "user_id")
_TIMES: Final = frozenset({"created_at", "updated_at"})


class ShowingSnapshot(ShowOne):
    """A command that ends with showing one instance snapshot."""

    def columns(self, parsed_args: Namespace) -> Sequence[str]:  # noqa: ARG002  # they are always the same
        """See `ShowOne`."""
        return keys()

    def outcome(self, parsed_args: Namespace, client: Client, snapshot_id: str, task_uri: str, title: str) -> Fields:
        """After a request was accepted: the snapshot at the end of the operation, or without waiting as it is now.

        Without waiting nothing that goes wrong from here on is a failure, for the request has been accepted.
        """
        accepted = {"id": snapshot_id, "task_uri": task_uri}
        if parsed_args.wait:
            return fields({**(wait(client, snapshot_id, task_uri, title) or {}), **accepted}, parsed_args.columns)
        try:
            return fields({**client.snapshot(snapshot_id), **accepted}, parsed_args.columns)
        except CommandFailed:
            return fields(accepted, parsed_args.columns)


class CreateSnapshot(ShowingSnapshot):
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

    def take_action(self, parsed_args: Namespace) -> Fields:
        """See `cliff`."""
        client = self.client()
        instance_id = client.find_instance(parsed_args.instance)["id"]
        volumes = _volume_ids(client, instance_id, parsed_args.volumes)
        snapshot_id, task_uri = client.create(
            instance_id, parsed_args.name, parsed_args.description, volumes, parsed_args.minimum_consistency
        )
        return self.outcome(parsed_args, client, snapshot_id, task_uri, f"taking {parsed_args.name}")


class DeleteSnapshot(Command):
    """Delete instance snapshots with everything that belongs to them."""

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = super().get_parser(prog_name)
        parser.add_argument("snapshots", metavar="SNAPSHOT", nargs="+", help="Instance snapshot, by id or name.")
        add_wait_option(parser)
        return parser

    def take_action(self, parsed_args: Namespace) -> int:
        """See `cliff`: one that cannot be deleted does not keep the others; the first failure's code is returned."""
        client = self.client()
        codes: list[ExitCode] = []
        for reference in parsed_args.snapshots:
            try:
                snapshot_id: str = client.find_snapshot(reference)["id"]
                task_uri = client.delete(snapshot_id)
                if parsed_args.wait:
                    wait(client, snapshot_id, task_uri, f"deleting {reference}")
            except CommandFailed as failure:
                if len(parsed_args.snapshots) == 1:
                    raise
                self.app.LOG.error("%s: %s", reference, failure)  # noqa: TRY400  # the line says it all
                codes.append(failure.code)
        return int(codes[0]) if codes else 0


class ListSnapshot(Lister):
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
        return columns, [tuple(_shown(column, snapshot.get(column)) for column in columns) for snapshot in found]


class SetSnapshot(Command):
    """Change the name or the description of an instance snapshot."""

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = add_snapshot(super().get_parser(prog_name))
        parser.add_argument("--name", help="New name.")
        parser.add_argument("--description", help="New description; may be empty.")
        return parser

    def take_action(self, parsed_args: Namespace) -> None:
        """See `cliff`."""
        given = {"name": parsed_args.name, "description": parsed_args.description}
        changes = {key: value for key, value in given.items() if value is not None}
        if not changes:
            raise CommandFailed(ExitCode.USAGE, "nothing to change: give --name, --description or both")
        client = self.client()
        client.update(client.find_snapshot(parsed_args.snapshot)["id"], changes)


class ShowSnapshot(ShowingSnapshot):
    """Show an instance snapshot."""

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        return add_snapshot(super().get_parser(prog_name))

    def take_action(self, parsed_args: Namespace) -> Fields:
        """See `cliff`."""
        return fields(self.client().find_snapshot(parsed_args.snapshot), parsed_args.columns)


class ShowProgress(ShowOne):
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


def add_snapshot(parser: ArgumentParser) -> ArgumentParser:
    """Have a parser take the instance snapshot that a command is about."""
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="Instance snapshot, by id or name.")
    return parser


def keys() -> tuple[str, ...]:
    """What a service of this release tells of an instance snapshot."""
    from stillframe.api.schemas import SnapshotView  # noqa: PLC0415  # takes a while to load, and is seldom needed

    return tuple(SnapshotView.model_fields)


def _shown(column: str, value: Any) -> Any:
    if column in _TIMES:
        return TimeColumn(value)
    return MapColumn(value) if isinstance(value, dict) else value


def _snapshot_id(task_uri: str) -> str:
    found = parse_qs(urlsplit(task_uri).query).get("id")
    if not found:
        raise CommandFailed(ExitCode.USAGE, f"{task_uri} is not the URI of a task")
    return found[0]


def _volume_ids(client: Client, instance_id: str, references: list[str]) -> list[str]:
    if not references:
        return []
    known: dict[str, str] = {}
    for volume, attachment in client.attached(instance_id):
        known |= dict.fromkeys((volume["id"], volume["name"], attachment["device"]), volume["id"])
    for reference in references:
        if reference not in known:
            raise CommandFailed(ExitCode.NOT_FOUND, f"the instance has no volume '{reference}'")
    return [known[reference] for reference in references]
