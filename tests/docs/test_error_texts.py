"""Error texts have one style: a sentence or more, which begins with a capital letter and ends with a full stop."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Final

import stillframe
from stillframe.domain import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE: Final = Path(stillframe.__file__).parent
TREE: Final = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
#: The platforms' packages: much of what they raise is a part of a sentence that names an array, a disk or a volume.
APART: Final = PACKAGE / "drivers"
#: Nova's own words, which its clients may know.
OTHERS: Final = ("Malformed request URL",)
#: What stands for a value in a text: nobody knows its letters.
VALUE: Final = "\N{OBJECT REPLACEMENT CHARACTER}"


def text(node: ast.expr) -> str | None:
    """What a message reads as, with `VALUE` for what is put into it; None if it is not written here."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(one.value) if isinstance(one, ast.Constant) else VALUE for one in node.values)
    return None


def raised() -> Iterator[tuple[str, str]]:
    """Where errors of the tree are made with a text, and the text.

    With a path, as `InvalidInput` may have one, the text goes on after the path and a colon.
    """
    for file in sorted(PACKAGE.rglob("*.py")):
        if not file.is_relative_to(APART):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TREE:
                    told = text(node.args[0]) if len(node.args) == 1 and not node.keywords else None
                    if told is not None:
                        yield f"{file.relative_to(PACKAGE)}:{node.lineno}", told


def test_an_error_is_told_in_whole_sentences() -> None:
    found = dict(raised())
    assert len(found) > 50
    small = {where: told for where, told in found.items() if told[:1].islower()}
    open_ended = {
        where: told
        for where, told in found.items()
        if not told.endswith((".", "?", VALUE)) and not told.startswith(OTHERS)
    }
    assert (small, open_ended) == ({}, {})
