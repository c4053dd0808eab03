"""stillframe instance remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from stillframe.cli.command import Command
from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.cli.instance.views import OTHER_SETTINGS

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stillframe.drivers.local.declaration import Declaration


class Remove(Command):
    """Forget an instance of this machine; its disks stay. Refused while there are instance snapshots of it."""

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = super().get_parser(prog_name)
        parser.add_argument("instance", metavar="INSTANCE", help="Instance, by id or name.")
        parser.add_argument(
            "--force",
            action="store_true",
            help="Do not ask the service whether it has instance snapshots. They stay, and can then only be deleted.",
        )
        return parser

    def take_action(self, parsed_args: Namespace) -> None:
        """See `cliff`."""
        from stillframe.drivers.local.declaration import Declarations  # noqa: PLC0415  # only on this machine
        from stillframe.drivers.local.files import Files  # noqa: PLC0415

        declarations = Declarations(self.settings().drivers.instances_dir)
        reference = parsed_args.instance
        found = [one for one in declarations.all() if reference in (one.id, one.name)]
        if not found:
            self._nowhere(reference, f"no instance '{reference}' is declared in {declarations.folder}")
        if not parsed_args.force:
            self._require_no_snapshots(found[0])
        declarations.remove(Files(), found[0].name)

    def _nowhere(self, reference: str, problem: str) -> NoReturn:
        """It is not where the settings of this command say; the service may have others."""
        try:
            client = self.client()
            client.find_instance(reference)
        except CommandFailed:
            raise CommandFailed(ExitCode.NOT_FOUND, problem) from None
        raise CommandFailed(ExitCode.NOT_FOUND, f"{problem}, but {client.endpoint} knows it; {OTHER_SETTINGS}")

    def _require_no_snapshots(self, declaration: Declaration) -> None:
        client = self.client()
        everywhere = {"all_tenants": "true" if client.project_id != declaration.project_id else None}
        try:
            left = client.snapshots({"instance_id": declaration.id, **everywhere})
            known = left or any(one["id"] == declaration.id for one in client.instances(everywhere))
        except CommandFailed as failure:
            raise CommandFailed(
                failure.code,
                f"it is not known whether it has instance snapshots (--force removes it anyway): {failure}",
            ) from None
        if not known:
            raise CommandFailed(
                ExitCode.REFUSED,
                f"{client.endpoint} does not know '{declaration.name}', so it is not known whether it has instance "
                f"snapshots (--force removes it anyway); {OTHER_SETTINGS}",
            )
        if left:
            names = ", ".join(f"{one['name']} ({one['id']})" for one in left[:5])
            raise CommandFailed(
                ExitCode.REFUSED,
                f"there are {len(left)} instance snapshots of '{declaration.name}': {names}; delete them first, "
                "or give --force",
            )
