"""Translated errors: what they are raised with is text, never the foreign exception itself."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import stillframe

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE: Final = Path(stillframe.__file__).parent
#: The end of the program: behind it there is only the terminal, and `--debug` shows the whole chain there.
LAST: Final = PACKAGE / "cli" / "command.py"


def chained(node: ast.AST, *, handling: bool = False) -> Iterator[ast.Raise]:
    """What is raised with a cause, or while something else is handled and not said to stand alone."""
    for child in ast.iter_child_nodes(node):
        inner = handling or isinstance(child, ast.ExceptHandler)
        if isinstance(child, ast.FunctionDef | ast.Lambda):
            inner = False
        if isinstance(child, ast.Raise) and child.exc is not None:
            alone = isinstance(child.cause, ast.Constant) and child.cause.value is None
            if not alone and (handling or child.cause is not None):
                yield child
        yield from chained(child, handling=inner)


@pytest.mark.parametrize("module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_hands_a_foreign_exception_on_as_a_cause(module: Path) -> None:
    found = [f"line {one.lineno}: {ast.unparse(one)}" for one in chained(ast.parse(module.read_text()))]
    if module == LAST:
        assert len(found) == 1
    else:
        assert found == []
