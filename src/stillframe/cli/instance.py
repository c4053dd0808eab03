"""stillframe instance: list, show, start and stop what a service knows; `declaration` says what it is to know."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final

from stillframe.cli.command import Command, Fields, Lister, Rows, ShowOne, fields
from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.domain.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stillframe.cli.client import Client, Document

# What is being done with it at present, or null.
_TASK: Final = "OS-EXT-STS:task_state"
_VOLUMES: Final = "os-extended-volumes:volumes_attached"
# What is shown of an instance, and what a list of them shows.
_KEYS: Final = ("id", "name", "status", "task_state", "project_id", "volumes")
_LISTED: Final = ("id", "name", "status")

_PAUSE: Final = 0.2
_NOTED_AFTER: Final = 1.0
_MEANWHILE: Final = {"powering-off": ": its guest is asked to shut down; if it does not, it is turned off"}


class ListInstance(Lister):
    """List instances."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """See `cliff`."""
        parser = super().get_parser(prog_name)
        parser.add_argument("--all-projects", action="store_true", help="Those of all projects (administrators).")
        return parser

    def columns(self, parsed_args: argparse.Namespace) -> Sequence[str]:  # noqa: ARG002  # they are always the same
        """See `Lister`."""
        return _KEYS

    def take_action(self, parsed_args: argparse.Namespace) -> Rows:
        """See `cliff`."""
        query = {"all_tenants": "true" if parsed_args.all_projects else None}
        found = [_view(server) for server in self.client().instances(query)]
        columns = _KEYS if parsed_args.columns else _LISTED + (("project_id",) if parsed_args.all_projects else ())
        return columns, [[instance[column] for column in columns] for instance in found]


class ShowInstance(ShowOne):
    """Show an instance and its volumes."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """See `cliff`."""
        return add_instance(super().get_parser(prog_name))

    def columns(self, parsed_args: argparse.Namespace) -> Sequence[str]:  # noqa: ARG002  # they are always the same
        """See `ShowOne`."""
        return _KEYS

    def take_action(self, parsed_args: argparse.Namespace) -> Fields:
        """See `cliff`."""
        client = self.client()
        shown = _view(client.find_instance(parsed_args.instance))
        shown["volumes"] = {
            attachment["device"]: volume["id"] for volume, attachment in client.attached(shown["id"])
        } or dict.fromkeys(shown["volumes"], "")
        return fields(shown)


class _Switch(Command):
    """A command that turns an instance on or off, and waits until its status is `status`."""

    status: ClassVar[str]

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """See `cliff`."""
        parser = add_instance(super().get_parser(prog_name))
        # What follows in a script needs the instance as it was asked for.
        parser.add_argument(
            "--wait",
            action=argparse.BooleanOptionalAction,
            default=True,
            help="Wait until it has happened (default). Without waiting, `instance show` shows the state.",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """See `cliff`."""
        client = self.client()
        instance_id = client.find_instance(parsed_args.instance)["id"]
        self._switch(client, instance_id)
        if parsed_args.wait:
            _wait_for(client, instance_id, self.status)

    def _switch(self, client: Client, instance_id: str) -> None:
        raise NotImplementedError


class StartInstance(_Switch):
    """Start an instance; refused while a restore fences it."""

    status = "ACTIVE"

    def _switch(self, client: Client, instance_id: str) -> None:
        client.start(instance_id)


class StopInstance(_Switch):
    """Shut an instance down: gracefully, then hard after the configured time."""

    status = "SHUTOFF"

    def _switch(self, client: Client, instance_id: str) -> None:
        client.stop(instance_id)


def add_instance(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Have a parser take the instance that a command is about."""
    parser.add_argument("instance", metavar="INSTANCE", help="Instance, by id or name.")
    return parser


def _view(server: Document) -> dict[str, Any]:
    """What is known about an instance here, out of what Nova's clients expect."""
    return {
        "id": server["id"],
        "name": server["name"],
        "status": server["status"],
        "task_state": server.get(_TASK),
        "project_id": server["tenant_id"],
        "volumes": [volume["id"] for volume in server.get(_VOLUMES, ())],
    }


def _wait_for(client: Client, instance_id: str, status: str) -> None:
    """Wait until nothing is being done with the instance; raises `CommandFailed` if its status is another one then."""
    started, said = time.monotonic(), False
    try:
        while (server := client.instance(instance_id)).get(_TASK) is not None:
            if not said and time.monotonic() - started > _NOTED_AFTER:
                said = True
                now = f"{printable(server['name'])} is {server[_TASK]}{_MEANWHILE.get(server[_TASK], '')}"
                print(now, file=sys.stderr, flush=True)  # noqa: T201  # this is what it is for
            time.sleep(_PAUSE)
    except KeyboardInterrupt:
        raise CommandFailed(
            ExitCode.INTERRUPTED, f"no longer waiting; it goes on, see: stillframe instance show {instance_id}"
        ) from None
    if server["status"] != status:
        raise CommandFailed(
            ExitCode.FAILED, f"instance {instance_id} is {server['status']}; the log of the service says why"
        )
