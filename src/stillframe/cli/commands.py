"""The table of all commands, and the manager that imports a command only when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

from cliff.commandmanager import CommandManager

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cliff.command import Command

COMMANDS: Final[Mapping[str, str]] = {
    "serve": "serve:Serve",
    "api": "serve:Api",
    "worker": "worker:Worker",
    "worker list": "worker:ListWorker",
    "doctor": "doctor:Doctor",
    "db accept-older": "older_database:AcceptOlder",
    "db check": "db:CheckDatabase",
    "db upgrade": "db:UpgradeDatabase",
    "instance add": "declaration:AddInstance",
    "instance list": "instance:ListInstance",
    "instance remove": "declaration:RemoveInstance",
    "instance show": "instance:ShowInstance",
    "instance start": "instance:StartInstance",
    "instance stop": "instance:StopInstance",
    "snapshot create": "snapshot:CreateSnapshot",
    "snapshot delete": "snapshot:DeleteSnapshot",
    "snapshot list": "snapshot:ListSnapshot",
    "snapshot progress": "snapshot:ShowProgress",
    "snapshot restore": "restore:Restore",
    "snapshot retry": "restore:Retry",
    "snapshot rollback": "restore:Rollback",
    "snapshot set": "snapshot:SetSnapshot",
    "snapshot show": "snapshot:ShowSnapshot",
}


class _Listed:
    """A command that stands in the table; see `cliff.commandmanager.EntryPointWrapper`."""

    def __init__(self, name: str, target: str) -> None:
        self.name = name
        self.value = f"stillframe.cli.{target}"

    def load(self) -> type[Command]:
        module, _, kind = self.value.partition(":")
        return cast("type[Command]", getattr(import_module(module), kind))


class ListedCommands(CommandManager):
    """The commands of the table; looking for others in every installed package would take longer than most commands."""

    def __init__(self) -> None:
        super().__init__(namespace=None)
        self.commands: dict[str, Any] = {name: _Listed(name, target) for name, target in COMMANDS.items()}
