"""What benchmarks find: figures, the aims they are held against, and how they are shown."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

_COLUMNS: Final = ("what", "measured", "aim", "met")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure; `below` is the aim, without which it is there to explain another one."""

    what: str
    value: float
    unit: str
    below: float | None = None

    @property
    def met(self) -> bool | None:
        return None if self.below is None else self.value < self.below


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least so many percent of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def as_table(figures: Sequence[Figure]) -> str:
    """Lines of text with a column each for what, measured, aim, and whether it is met."""
    rows = [_COLUMNS, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def as_json(found: dict[str, Sequence[Figure]]) -> str:
    """The same for programs, by benchmark."""
    shown = {name: [{**asdict(figure), "met": figure.met} for figure in figures] for name, figures in found.items()}
    return json.dumps(shown, indent=2)


def _row(figure: Figure) -> tuple[str, str, str, str]:
    aim = "" if figure.below is None else f"< {_number(figure.below, figure.unit)}"
    met = {None: "", True: "yes", False: "NO"}[figure.met]
    return figure.what, _number(figure.value, figure.unit), aim, met


def _number(value: float, unit: str) -> str:
    digits = 0 if value == int(value) or abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f} {unit}".rstrip()
