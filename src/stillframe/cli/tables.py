"""Tables for people: no lines between the columns, and nothing that is copied from them is broken.

A list keeps each thing on one line where it is piped. On a terminal, long text is wrapped to its width; ids and times
are not.
"""

from __future__ import annotations

import re
import sys
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

from cliff.columns import FormattableColumn
from cliff.formatters.table import TableFormatter
from cliff.utils import terminal_width

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stevedore import ExtensionManager

_USUAL_WIDTH: Final = 80
_NARROWEST: Final = 5
_GAP: Final = 2
_INDENT: Final = "  "
_WHOLE: Final = re.compile(
    r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}:?|\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d:\d\d(?:\.\d+)?)?"
)
_WHOLE_COLUMNS: Final = frozenset({"status", "result"})
# After a blank or a slash, and before what follows in a query.
_BREAKS: Final = re.compile(r"(?<=\s)(?=\S)|(?<=/)(?=[^/\s])|(?=[?&])")


class Table(TableFormatter):
    """The form `table`, for lists and for single things."""

    def emit_list(
        self, column_names: Sequence[str], data: Iterable[Sequence[Any]], stdout: Any, parsed_args: Any
    ) -> None:
        """See `cliff`."""
        rows = [[_text(value) for value in row] for row in data]
        width = _width(parsed_args)
        if rows or parsed_args.print_empty:
            _write(stdout, column_names, rows if width is None else _fitted(column_names, rows, width))

    def emit_one(self, column_names: Sequence[str], data: Sequence[Any], stdout: Any, parsed_args: Any) -> None:
        """See `cliff`."""
        first = max(map(len, column_names), default=0) + _GAP
        room = (_width(parsed_args) or _USUAL_WIDTH) - first
        rows = [[name, _wrapped(_text(value), room)] for name, value in zip(column_names, data, strict=True)]
        _write(stdout, None, rows)


def replace_formatter(plugins: ExtensionManager[Any]) -> None:
    """Have `table` mean the one of this module."""
    plugins["table"].obj = Table()


def _text(value: Any) -> str:
    if isinstance(value, FormattableColumn):
        value = value.human_readable()
    return "" if value is None else str(value).replace("\r\n", "\n").replace("\r", " ")


def _width(parsed_args: Any) -> int | None:
    """How wide a table may be: as was said, else as the terminal is; None where there is none."""
    if parsed_args.max_width > 0:
        return int(parsed_args.max_width)
    return terminal_width() if sys.stdout.isatty() or parsed_args.fit_width else None


def _fitted(names: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """The rows with the text of the widest columns wrapped, as far as it can be."""
    columns = [[name, *(row[at] for row in rows)] for at, name in enumerate(names)]
    widths = [max(_longest(text.split("\n")) for text in column) for column in columns]
    floors = [
        widths[at] if names[at] in _WHOLE_COLUMNS else min(widths[at], max(_floor(text) for text in column))
        for at, column in enumerate(columns)
    ]
    while sum(widths) + _GAP * (len(names) - 1) > width:
        loose = [at for at in range(len(names)) if widths[at] > max(floors[at], _NARROWEST)]
        if not loose:
            break
        widths[max(loose, key=widths.__getitem__)] -= 1
    return [[_wrapped(text, widths[at], hard=True) for at, text in enumerate(row)] for row in rows]


def _longest(parts: Iterable[str]) -> int:
    return max(map(len, parts), default=0)


def _floor(text: str) -> int:
    """The width of what is not to be broken in a text."""
    return _longest(part for part in map(str.strip, _BREAKS.split(text)) if _WHOLE.fullmatch(part))


def _wrapped(text: str, width: int, *, hard: bool = False) -> str:
    """The text in lines of at most a width, broken where a reader would; with `hard` in words too, if it has to be."""
    lines: list[str] = []
    for given in text.split("\n"):
        line = ""
        for part in _BREAKS.split(given):
            if line.strip() and len(line) + len(part.rstrip()) > width:
                lines.append(line)
                line = "" if hard else _INDENT
            line += part
            while hard and len(line.rstrip()) > width and not _WHOLE.fullmatch(line.strip()):
                lines.append(line[:width])
                line = line[width:]
        lines.append(line)
    return "\n".join(line.rstrip() for line in lines)


def _write(stdout: Any, names: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> None:
    """Write the columns; without names no head."""
    table = [[cell.split("\n") for cell in row] for row in ([names] if names else []) + [*rows]]
    from rich.cells import cell_len  # noqa: PLC0415  # only where a table is shown

    widths = [max(cell_len(part) for cell in column for part in cell) for column in zip(*table, strict=True)]
    for row in table:
        for line in zip_longest(*row, fillvalue=""):
            shown = (part + " " * (width - cell_len(part)) for part, width in zip(line, widths, strict=True))
            stdout.write((" " * _GAP).join(shown).rstrip() + "\n")
