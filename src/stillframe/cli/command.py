"""What all commands have in common: their errors become one line and an exit code, and they find the settings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from cliff import columns, command, lister, show

from stillframe.cli.exit_codes import CommandFailed, ExitCode, as_failure
from stillframe.domain.errors import InvalidInput

if TYPE_CHECKING:
    from argparse import Namespace

    from stillframe.cli.client import Client
    from stillframe.settings import Settings

CONFIG_VARIABLE: Final = "STILLFRAME_CONFIG"

Rows = tuple[Sequence[str], Sequence[Sequence[Any]]]
Fields = tuple[Sequence[str], Sequence[Any]]


class _Common(command.Command):
    def __init__(self, app: Any, app_args: Namespace | None) -> None:
        # Without its name a command looks for no hooks in other packages.
        super().__init__(app, app_args)

    def run(self, parsed_args: Namespace) -> int:
        try:
            return int(super().run(parsed_args) or 0)
        except (BrokenPipeError, CommandFailed):
            raise
        except Exception as error:
            raise as_failure(error) from error

    def settings(self) -> Settings:
        """The settings of the service on this machine."""
        from stillframe.settings import load  # noqa: PLC0415  # commands that talk HTTP only do without

        named = self.app.options.config_file or os.environ.get(CONFIG_VARIABLE, "").split(os.pathsep)
        try:
            return load([path for path in named if path])
        except InvalidInput as error:
            raise CommandFailed(ExitCode.USAGE, error.message) from None

    def client(self) -> Client:
        """The service, as the options and the environment say how to reach it."""
        from stillframe.cli.connection import open_client  # noqa: PLC0415  # brings requests along

        return open_client(self.app.options, self.settings)


class Command(_Common):
    """A command that prints no table."""


class ShowOne(_Common, show.ShowOne):
    """A command that shows one thing."""


class Lister(_Common, lister.Lister):
    """A command that lists things."""


class MapColumn(columns.FormattableColumn[Any]):
    """A map that people read as lines, and programs as a map."""

    def human_readable(self) -> str:
        return "\n".join(f"{key}: {value}" for key, value in (self._value or {}).items())


def fields(thing: Mapping[str, Any]) -> Fields:
    """One thing as `ShowOne` takes it."""
    return tuple(thing), tuple(MapColumn(value) if isinstance(value, dict) else value for value in thing.values())
