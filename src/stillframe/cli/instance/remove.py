"""stillframe instance remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillframe.cli.command import Command
from stillframe.cli.exit_codes import CommandFailed, ExitCode

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

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
            help="Do not ask the service for its instance snapshots: they stay, and can then only be deleted.",
        )
        return parser

    def take_action(self, parsed_args: Namespace) -> None:
        """See `cliff`."""
        from stillframe.drivers.local.declaration import Declarations  # noqa: PLC0415  # only on this machine
        from stillframe.drivers.local.files import Files  # noqa: PLC0415

        declarations = Declarations(self.settings().drivers.instances_dir)
        declaration = _find(declarations.all(), parsed_args.instance, declarations.folder)
        if not parsed_args.force:
            self._require_no_snapshots(declaration)
        declarations.remove(Files(), declaration.name)

    def _require_no_snapshots(self, declaration: Declaration) -> None:
        client = self.client()
        elsewhere = client.project_id != declaration.project_id
        try:
            left = client.snapshots({"instance_id": declaration.id, "all_tenants": "true" if elsewhere else None})
        except CommandFailed as failure:
            raise CommandFailed(
                failure.code, f"nobody can say whether there are instance snapshots of it (--force goes on): {failure}"
            ) from None
        if left:
            names = ", ".join(f"{one['name']} ({one['id']})" for one in left[:5])
            raise CommandFailed(
                ExitCode.REFUSED,
                f"there are {len(left)} instance snapshots of '{declaration.name}': {names}; delete them first, "
                "or give --force",
            )


def _find(found: Sequence[Declaration], reference: str, folder: object) -> Declaration:
    for declaration in found:
        if reference in (declaration.id, declaration.name):
            return declaration
    raise CommandFailed(ExitCode.NOT_FOUND, f"no instance '{reference}' is declared in {folder}")
