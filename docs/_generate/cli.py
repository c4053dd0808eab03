# ruff: noqa: SLF001  # argparse tells nobody else what a parser takes
"""The command line, from its table of commands, their parsers and the table of exit codes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from unittest import mock

from _generate.tables import table
from stillframe.cli.commands import COMMANDS, ListedCommands
from stillframe.cli.exit_codes import MEANINGS
from stillframe.cli.main import Shell

if TYPE_CHECKING:
    from argparse import Action, ArgumentParser
    from collections.abc import Iterator

# Groups of options that every command has, or every command that prints a table.
_COMMON = frozenset({"output formatters", "table formatter", "json formatter", "shell formatter", "CSV Formatter"})


def page() -> Iterator[str]:
    yield "# Command line"
    yield ""
    yield "`stillframe` talks to the service over HTTP, like any other client. `serve`, `api`, `worker`, `doctor`,"
    yield "`db`, `instance add` and `instance remove` work on this machine instead and read the settings of its"
    yield "service."
    yield ""
    yield "## Commands"
    yield ""
    # The environment would become the default values.
    with mock.patch.dict(os.environ, clear=True):
        shell = Shell()
        commands = {name: _parser(shell, name) for name in sorted(COMMANDS)}
        rows = (
            (f"[`{name}`](#{_anchor(name)})", (parser.description or "").partition("\n")[0])
            for name, parser in commands.items()
        )
        yield from table(("Command", "What it does"), rows)
        for name, parser in commands.items():
            yield from _command(name, parser)
        yield "## Options before the command"
        yield ""
        yield from table(("Option", "Meaning"), (_row(shell.parser, one) for one in shell.parser._actions))
    yield "## Options of the output"
    yield ""
    yield "Commands that show something take `-f FORMAT` (`table`, `json`, `yaml`, `value`; for lists also `csv`, for"
    yield "one thing also `shell`) and `-c COLUMN`, which may be repeated. `stillframe help COMMAND` names all options."
    yield "Results go to the standard output; progress and errors go to the standard error."
    yield ""
    yield "A column that does not exist is refused before anything happens, and the message names those that exist."
    yield "Lists show some columns; `-c` can ask for every other one too. A table has no lines between its columns and"
    yield "breaks no id and no time: other long text is wrapped on a terminal; in a pipe each thing is a line."
    yield ""
    yield "Names and other text of strangers are printed without effect: an end of line, an escape sequence of a"
    yield "terminal or an invisible character is written out (`\\n`, `\\x1b`), in `value` and `csv` too, so that a line"
    yield "is always one thing; `shell` also quotes what a shell would carry out. JSON and YAML keep the exact values."
    yield ""
    yield "## Exit codes"
    yield ""
    yield from table(("Code", "Meaning"), ((str(int(code)), text) for code, text in MEANINGS.items()))


def _parser(shell: Shell, name: str) -> ArgumentParser:
    kind, _, _ = ListedCommands().find_command(name.split())
    command: Any = kind(shell, None)
    parser: ArgumentParser = command.get_parser(f"stillframe {name}")
    parser.description = command.get_description()
    return parser


def _command(name: str, parser: ArgumentParser) -> Iterator[str]:
    groups = [group for group in parser._action_groups if group.title not in _COMMON]
    own = [action for group in groups for action in group._group_actions if action.dest != "help"]
    words = [_usage(action) for action in sorted(own, key=lambda action: not action.option_strings)]
    yield f"### {name}"
    yield ""
    yield f"`{' '.join(['stillframe', name, *words])}`"
    yield ""
    yield f"{(parser.description or '').rstrip('.')}."
    yield ""
    if own:
        yield from table(("Argument", "Meaning"), (_row(parser, action) for action in own))


def _usage(action: Action) -> str:
    value = str(action.metavar or action.dest.upper())
    if not action.option_strings:
        return f"{value} [{value} ...]" if action.nargs == "+" else value
    word = " | ".join(action.option_strings) if action.nargs == 0 else f"{action.option_strings[-1]} {value}"
    return word if action.required else f"[{word}]"


def _row(parser: ArgumentParser, action: Action) -> tuple[str, str]:
    value = "" if action.nargs == 0 or not action.option_strings else f" {action.metavar or action.dest.upper()}"
    names = ", ".join(f"`{name}{value}`" for name in action.option_strings) or f"`{action.metavar or action.dest}`"
    return names, parser._get_formatter()._expand_help(action)


def _anchor(heading: str) -> str:
    return heading.replace(" ", "-")
