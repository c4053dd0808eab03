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
    "api": "api:Api",
    "worker": "worker:Worker",
    "worker list": "worker:List",
    "doctor": "doctor:Doctor",
    "db check": "db.check:Check",
    "db upgrade": "db.upgrade:Upgrade",
    "instance add": "instance.add:Add",
    "instance list": "instance.list:List",
    "instance remove": "instance.remove:Remove",
    "instance show": "instance.show:Show",
    "instance start": "instance.start:Start",
    "instance stop": "instance.stop:Stop",
    "snapshot create": "snapshot.create:Create",
    "snapshot delete": "snapshot.delete:Delete",
    "snapshot list": "snapshot.list:List",
    "snapshot progress": "snapshot.progress:Progress",
    "snapshot restore": "snapshot.restore:Restore",
    "snapshot retry": "snapshot.retry:Retry",
    "snapshot rollback": "snapshot.rollback:Rollback",
    "snapshot set": "snapshot.set:Set",
    "snapshot show": "snapshot.show:Show",
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
