"""stillframe instance add and remove: what the service is told about the instances of this machine."""

from __future__ import annotations

import re
import shlex
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from stillframe.cli.command import Command, Fields, ShowOne, fields
from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.cli.instance import add_instance
from stillframe.cli.options import PROJECT
from stillframe.domain.errors import StillframeError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from stillframe.drivers.files.images import Images
    from stillframe.drivers.image_files.formats import Format
    from stillframe.drivers.qemu.declaration import Declaration

_SHOWN: Final = ("id", "name", "project_id", "volumes", "file")
# What to do where the service does not work in the folder that a command's own settings name.
_OTHER_SETTINGS: Final = "give this command the service's settings: --config-file FILE, or STILLFRAME_CONFIG"
_KEYS: Final = ("name", "format", "bootable")
# A path may have commas in it; only one before a known key ends it.
_SEPARATOR: Final = re.compile(rf",(?=(?:{'|'.join(_KEYS)})=)")


class AddInstance(ShowOne):
    """Declare an instance of this machine: which image files are its disks, and how to reach its QEMU process."""

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="Name of the instance.")
        parser.add_argument("--id", help="Its id, a UUID (default: a new one).")
        parser.add_argument("--project", metavar="PROJECT", help="Project that owns it (default: --os-project-id).")
        parser.add_argument(
            "--disk",
            metavar="PATH[,name=NAME][,format=raw|qcow2][,bootable=yes|no]",
            dest="disks",
            action="append",
            default=[],
            help="An image file; may be repeated, the first is what it boots from. Without a name it is called disk0, "
            "disk1, ...; without a format the file must have a qcow2 header, because raw is never guessed.",
        )
        parser.add_argument(
            "--vdisk",
            metavar="VDISK[,name=NAME][,array=ARRAY][,bootable=yes|no]",
            dest="vdisks",
            action="append",
            default=[],
            help="A volume of a Storage Virtualize array, by its name there; may be repeated. Needs --qmp-socket.",
        )
        parser.add_argument("--qmp-socket", metavar="PATH", type=Path, help="Socket of its QEMU monitor (QMP).")
        parser.add_argument("--guest-agent-socket", metavar="PATH", type=Path, help="Socket of its guest agent.")
        parser.add_argument(
            "--start-command",
            metavar="COMMAND",
            help="Command that starts it, as one argument, quoted as for a shell. Without it a restore with --force "
            "leaves the instance off.",
        )
        return parser

    def columns(self, parsed_args: Namespace) -> Sequence[str]:  # noqa: ARG002  # they are always the same
        """See `ShowOne`."""
        return _SHOWN

    def take_action(self, parsed_args: Namespace) -> Fields:
        """See `cliff`."""
        from pydantic import ValidationError  # noqa: PLC0415

        from stillframe.drivers.files.images import Images  # noqa: PLC0415
        from stillframe.drivers.image_files.files import Files  # noqa: PLC0415
        from stillframe.drivers.image_files.opening import trusted_users  # noqa: PLC0415
        from stillframe.drivers.qemu.declaration import Declaration, Declarations  # noqa: PLC0415
        from stillframe.drivers.qemu.options import read  # noqa: PLC0415

        # What belongs to the service's user is as good as what belongs to the one who declares it.
        images = Images(trusted=trusted_users(self.settings().state_dir))
        content = self._content(parsed_args)
        for disk in content["disks"]:
            disk.setdefault("format", None)
            disk["format"] = disk["format"] or _probed(images, disk["path"])
        try:
            declaration = Declaration.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            raise CommandFailed(ExitCode.REFUSED, f"{key}: {first['msg']}" if key else first["msg"]) from None
        path = Declarations(read(self.settings()).instances).add(Files(), images, declaration)
        if not declaration.start_command:
            self.app.LOG.warning("without --start-command a restore with --force leaves it off, and nothing starts it")
        if not self.config_files():
            self._look_for(declaration.id)
        return fields(
            {
                "id": declaration.id,
                "name": declaration.name,
                "project_id": declaration.project_id,
                "volumes": {disk.name: declaration.volume_id(disk) for disk in declaration.attached},
                "file": str(path),
            }
        )

    def _look_for(self, instance_id: str) -> None:
        """Tell if a service runs that does not see what was declared: it has settings of its own."""
        try:
            client = self.client()
            seen = any(one["id"] == instance_id for one in client.instances({}))
        except CommandFailed:
            return
        if not seen:
            self.app.LOG.warning("the service at %s does not see it; %s", client.endpoint, _OTHER_SETTINGS)

    def _content(self, parsed_args: Namespace) -> dict[str, Any]:
        content: dict[str, Any] = {
            "id": parsed_args.id or str(uuid.uuid4()),
            "name": parsed_args.name,
            "project_id": parsed_args.project or self.app.options.os_project_id or PROJECT,
            "disks": [_disk(text, number) for number, text in enumerate(parsed_args.disks)],
            "vdisks": [_vdisk(text, len(parsed_args.disks) + n) for n, text in enumerate(parsed_args.vdisks)],
        }
        for key in ("qmp_socket", "guest_agent_socket"):
            if getattr(parsed_args, key):
                content[key] = getattr(parsed_args, key).absolute()
        if parsed_args.start_command:
            content["start_command"] = shlex.split(parsed_args.start_command)
        return content


class RemoveInstance(Command):
    """Forget an instance of this machine; its disks stay. Refused while there are instance snapshots of it."""

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = add_instance(super().get_parser(prog_name))
        parser.add_argument(
            "--force",
            action="store_true",
            help="Do not ask the service whether it has instance snapshots. They stay, and can then only be deleted.",
        )
        return parser

    def take_action(self, parsed_args: Namespace) -> None:
        """See `cliff`."""
        from stillframe.drivers.image_files.files import Files  # noqa: PLC0415
        from stillframe.drivers.qemu.declaration import Declarations  # noqa: PLC0415  # only on this machine
        from stillframe.drivers.qemu.options import read  # noqa: PLC0415

        declarations = Declarations(read(self.settings()).instances)
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
        raise CommandFailed(ExitCode.NOT_FOUND, f"{problem}, but {client.endpoint} knows it; {_OTHER_SETTINGS}")

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
                f"snapshots (--force removes it anyway); {_OTHER_SETTINGS}",
            )
        if left:
            names = ", ".join(f"{one['name']} ({one['id']})" for one in left[:5])
            raise CommandFailed(
                ExitCode.REFUSED,
                f"there are {len(left)} instance snapshots of '{declaration.name}': {names}; delete them first, "
                "or give --force",
            )


def _disk(text: str, number: int) -> dict[str, Any]:
    path, *rest = _SEPARATOR.split(text)
    return {"path": Path(path).absolute(), "name": f"disk{number}"} | _pairs(rest)


def _vdisk(text: str, number: int) -> dict[str, Any]:
    vdisk, *rest = text.split(",")
    return {"vdisk": vdisk, "name": f"disk{number}"} | _pairs(rest)


def _pairs(items: Sequence[str]) -> dict[str, str]:
    return {key: value for key, _, value in (item.partition("=") for item in items)}


def _probed(images: Images, path: Path) -> Format:
    if not path.is_file():
        raise CommandFailed(ExitCode.REFUSED, f"{path} is not there, or no file")
    try:
        return images.probe(path)
    except StillframeError as error:
        raise CommandFailed(ExitCode.REFUSED, f"{path}: {error.message}") from None
