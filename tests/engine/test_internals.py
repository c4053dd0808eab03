"""TaskFlow's private names stand in one file, so that a new release of it is a matter of that file."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import taskflow

import stillframe
from stillframe import engine

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(stillframe.__file__).parent
INTERNALS = SOURCE / "engine" / "internals.py"
LIBRARY = Path(taskflow.__file__).parent


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own(tree: ast.Module) -> Iterator[str]:
    """The private names that a file gives to attributes of its own: by an assignment, a method, a field or a slot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _of_itself(node):
            yield node.attr
        elif isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.FunctionDef):
                    yield part.name
                elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                    yield part.target.id
                elif isinstance(part, ast.Assign):
                    yield from (one.id for one in part.targets if isinstance(one, ast.Name))


def _of_itself(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def used(tree: ast.Module) -> set[str]:
    """The private names that a file asks others for."""
    asked = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {name for name in asked if private(name)} - set(own(tree))


def imported(tree: ast.Module) -> list[str]:
    """What a file imports from TaskFlow, by its parts."""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "taskflow":
            found += [*(node.module or "").split("."), *(one.name for one in node.names)]
        elif isinstance(node, ast.Import):
            found += [part for one in node.names if one.name.startswith("taskflow") for part in one.name.split(".")]
    return found


@pytest.fixture(scope="module")
def names() -> frozenset[str]:
    """The private names of TaskFlow's objects."""
    found: set[str] = set()
    for file in LIBRARY.rglob("*.py"):
        if "tests" not in file.parts and "examples" not in file.parts:
            found |= {name for name in own(ast.parse(file.read_text())) if private(name)}
    return frozenset(found)


def test_no_other_file_asks_for_a_private_name_of_taskflow(names: frozenset[str]) -> None:
    wrong = {}
    for file in SOURCE.rglob("*.py"):
        tree, at = ast.parse(file.read_text()), file.relative_to(SOURCE)
        theirs = imported(tree)
        asked = {name for name in theirs if private(name)}
        if theirs or at.parts[0] == "engine":
            asked |= used(tree) & names
        if asked and file != INTERNALS:
            wrong[str(at)] = asked
    assert wrong == {}


def test_only_the_engine_knows_taskflow() -> None:
    knowing = {
        file.relative_to(SOURCE).parts[0] for file in SOURCE.rglob("*.py") if imported(ast.parse(file.read_text()))
    }
    assert knowing == {"engine"}


def test_no_class_hides_a_private_name_of_the_stock_one_that_it_is_made_of() -> None:
    hidden = {}
    for module in pkgutil.iter_modules(engine.__path__, f"{engine.__name__}."):
        for kind in vars(importlib.import_module(module.name)).values():
            if isinstance(kind, type) and kind.__module__ == module.name != "stillframe.engine.internals":
                stock = [base for base in kind.__mro__ if base.__module__.startswith("taskflow.")]
                theirs = {name for base in stock for name in vars(base) if private(name)} - {"_abc_impl"}
                if found := theirs & vars(kind).keys():
                    hidden[kind.__qualname__] = found
    assert hidden == {}


def test_what_the_file_uses_is_there(names: frozenset[str]) -> None:
    tree = ast.parse(INTERNALS.read_text())
    # What it has of its own are other names, but for what is replaced in the stock objects.
    assert used(tree) <= names
    assert {"_client", "_encode_owner", "_tables", "_upgrade_lock"} <= names
