"""What all commands have in common: their errors become one line and an exit code, and they find the settings."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from cliff import columns, command, display, lister, show

from stillframe.cli import tables
from stillframe.cli.exit_codes import CommandFailed, ExitCode, as_failure, usable_settings
from stillframe.domain.printable import printable

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stillframe.cli.client import Client
    from stillframe.settings import Settings

CONFIG_VARIABLE: Final = "STILLFRAME_CONFIG"

_EXACT_FORMS: Final = frozenset({"json", "yaml"})

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

        with usable_settings():
            return load(self.config_files())

    def config_files(self) -> list[str]:
        """The files of settings that the options or the environment name."""
        named = self.app.options.config_file or os.environ.get(CONFIG_VARIABLE, "").split(os.pathsep)
        return [path for path in named if path]

    def client(self) -> Client:
        """The service, as the options and the environment say how to reach it."""
        from stillframe.cli.connection import open_client  # noqa: PLC0415  # brings requests along

        return open_client(self.app.options, self.settings)


class Command(_Common):
    """A command that prints no table."""


class _Displaying(_Common, display.DisplayCommandBase[Any]):
    """A command that prints a table, whose columns are known before anything is asked for or changed."""

    @abstractmethod
    def columns(self, parsed_args: Namespace) -> Sequence[str]:
        """All columns that may be asked for; those that are printed where none is may be fewer."""

    def get_parser(self, prog_name: str) -> ArgumentParser:
        parser = super().get_parser(prog_name)
        tables.replace_formatter(self._formatter_plugins)
        return parser

    def run(self, parsed_args: Namespace) -> int:
        if parsed_args.columns:
            known = self.columns(parsed_args)
            parsed_args.columns = [self._normalize_column_name(name) for name in parsed_args.columns]
            unknown = ", ".join(repr(name) for name in parsed_args.columns if name not in known)
            if unknown:
                raise CommandFailed(ExitCode.USAGE, f"there is no column {unknown}; there are: {', '.join(known)}")
        return super().run(parsed_args)


class ShowOne(_Displaying, show.ShowOne):
    """A command that shows one thing."""

    def produce_output(self, parsed_args: Namespace, column_names: Sequence[str], data: Sequence[Any]) -> int:
        """See `cliff`."""
        return int(super().produce_output(parsed_args, column_names, _shown(parsed_args.formatter, data)))


class Lister(_Displaying, lister.Lister):
    """A command that lists things."""

    def produce_output(self, parsed_args: Namespace, column_names: Sequence[str], data: Iterable[Sequence[Any]]) -> int:
        """See `cliff`."""
        rows = [_shown(parsed_args.formatter, row) for row in data]
        return int(super().produce_output(parsed_args, column_names, rows))


class MapColumn(columns.FormattableColumn[Any]):
    """A map that people read as lines, and programs as a map."""

    def human_readable(self) -> str:
        return "\n".join(printable(f"{key}: {value}") for key, value in (self._value or {}).items())


class TimeColumn(columns.FormattableColumn[Any]):
    """A time (UTC) that people read to the second, and programs as the service tells it."""

    def human_readable(self) -> str:
        return printable(str(self._value).partition(".")[0]) if self._value else ""


def fields(thing: Mapping[str, Any], wanted: Sequence[str] = ()) -> Fields:
    """One thing as `ShowOne` takes it; the `wanted` columns are there though the thing lacks them."""
    whole = {**thing, **{name: None for name in wanted if name not in thing}}
    return tuple(whole), tuple(MapColumn(value) if isinstance(value, dict) else value for value in whole.values())


def _shown(form: str, values: Sequence[Any]) -> tuple[Any, ...]:
    """Values of strangers in a form of output: with no effect on a terminal, a reader of lines, or a shell.

    JSON and YAML have ways of their own to write everything, and keep the values as they are.
    """
    if form in _EXACT_FORMS:
        return tuple(values)
    if form == "shell":
        return tuple(_in_quotes(value) for value in values)
    return tuple(printable(value) if isinstance(value, str) else value for value in values)


def _in_quotes(value: Any) -> str:
    """What stands between double quotes of a shell, except for those that cliff itself writes as such."""
    text = printable(str(value.machine_readable() if isinstance(value, columns.FormattableColumn) else value))
    for special in ("\\", "$", "`"):
        text = text.replace(special, f"\\{special}")
    return text
