"""The program `stillframe`."""

from __future__ import annotations

import importlib.metadata
import io
import logging
import sys
from typing import TYPE_CHECKING, Any

from cliff.app import App

from stillframe.cli.command import CONFIG_VARIABLE
from stillframe.cli.commands import ListedCommands
from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.cli.options import add_connection_options
from stillframe.logs.lines import Lines, use_lines

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Sequence


class Shell(App):
    """Global options, and the way from an error to an exit code."""

    NAME = "stillframe"
    # Apart from the service's own logging: what is wrong is said in one line, whatever form its log has.
    LOG = logging.getLogger("stillframe.command_line")

    def __init__(self) -> None:
        super().__init__(
            description="Point-in-time snapshots of all volumes of a virtual machine, and their restore in place.",
            version=_version(),
            command_manager=ListedCommands(),
            deferred_help=True,
        )
        self._failure: BaseException | None = None

    def build_option_parser(
        self, description: str | None, version: str | None, argparse_kwargs: dict[str, Any] | None = None
    ) -> ArgumentParser:
        """See `App`."""
        # An abbreviation would take options away from the commands.
        ours = {"prog": self.NAME, "allow_abbrev": False}
        parser = super().build_option_parser(description, version, {**(argparse_kwargs or {}), **ours})
        parser.add_argument(
            "--config-file",
            metavar="FILE",
            action="append",
            help="Settings of the service on this machine; all commands find the service and its token by them "
            f"(may be repeated; {CONFIG_VARIABLE}).",
        )
        add_connection_options(parser)
        return parser

    def configure_logging(self) -> None:
        """See `App`."""
        super().configure_logging()
        use_lines()
        logging.getLogger("alembic").setLevel(logging.WARNING)
        console = logging.StreamHandler(self.stderr)
        console.setFormatter(Lines(self.CONSOLE_MESSAGE_FORMAT))
        self.LOG.addHandler(console)
        self.LOG.propagate = False

    def initialize_app(self, argv: list[str]) -> None:
        """See `App`: without a command there is nothing to talk about interactively."""
        if not argv and not self.options.deferred_help:
            self.parser.print_help(self.stderr)
            raise SystemExit(ExitCode.USAGE)

    def run_subcommand(self, argv: list[str]) -> int:
        """See `App`."""
        result = super().run_subcommand(argv)
        return int(self._failure.code) if isinstance(self._failure, CommandFailed) else result

    def clean_up(self, cmd: Any, result: int, err: BaseException | None) -> None:
        """See `App`."""
        super().clean_up(cmd, result, err)
        self._failure = err


def _version() -> str:
    try:
        return importlib.metadata.version("stillframe")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # What a terminal cannot show must not make a failure of what has been done.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return Shell().run(list(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
