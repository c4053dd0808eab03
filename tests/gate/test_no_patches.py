"""No test puts something else in the place of what it tests: what has to differ is an option or an argument."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parent.parent
PATCHES: Final = frozenset({"setattr", "delattr", "setitem", "delitem"})
LIBRARIES: Final = ("mock", "unittest.mock", "pytest_mock", "unittest", "mocker")


def patches(source: str) -> list[str]:
    """What of a module's text patches something, with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in PATCHES:
            if isinstance(node.value, ast.Name) and node.value.id in ("monkeypatch", "patch", "patched"):
                found.append(f"{node.lineno}: {node.value.id}.{node.attr}")
        elif isinstance(node, ast.ImportFrom):
            if node.module in LIBRARIES:
                found.append(f"{node.lineno}: {node.module}")
        elif isinstance(node, ast.Import):
            found += [f"{node.lineno}: {one.name}" for one in node.names if one.name in LIBRARIES]
        elif isinstance(node, ast.arg) and node.arg == "mocker":
            found.append(f"{node.lineno}: mocker")
    return found


def test_no_test_patches_what_it_tests() -> None:
    files = [one for one in TESTS.rglob("*.py") if "node_modules" not in one.parts]
    assert len(files) > 100
    found = {str(one.relative_to(TESTS)): some for one in files if (some := patches(one.read_text()))}
    assert not found, "give the module an option, or its class an argument"


@pytest.mark.parametrize(
    "line",
    [
        "monkeypatch.setattr(module, 'LONG', 1)",
        "monkeypatch.setitem(module.TABLE, 'a', 1)",
        "from unittest.mock import patch",
        "from unittest import mock",
        "import unittest.mock",
        "def test(mocker): ...",
    ],
)
def test_each_way_to_patch_is_noticed(line: str) -> None:
    assert patches(line)


def test_the_environment_may_be_set() -> None:
    assert not patches("monkeypatch.setenv('HOME', '/')")
