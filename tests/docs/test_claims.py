"""What the pages claim about the code, and that a test holds it."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Final

import pytest

from stillframe.settings.extensions import PORTS, installed, names

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = ROOT / "src" / "stillframe"
ROWS: Final = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in (ROOT / "docs" / "explanation" / "claims.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| `")
]
DRIVERS: Final = frozenset(name for port in PORTS for name in names(installed(), port))


def plain(text: str) -> str:
    return " ".join(text.replace("**", "").split())


@pytest.mark.parametrize(("page", "claim", "tests"), ROWS, ids=lambda text: text[:40])
def test_a_claim_stands_on_its_page_and_has_a_test(page: str, claim: str, tests: str) -> None:
    assert plain(claim) in plain((ROOT / page.strip("`")).read_text(encoding="utf-8"))
    named = re.findall(r"`([a-z_/.:0-9]+)`", tests)
    assert named
    for name in named:
        path, _, test = name.partition("::")
        found = ROOT / "tests" / path
        assert found.exists(), name
        assert not test or f"def {test}(" in found.read_text(encoding="utf-8"), name


def test_claims_are_found() -> None:
    assert len(ROWS) >= 30


@pytest.mark.parametrize(
    "layer",
    ["api", "cli", "domain", "engine", "flows", "main.py", "service", "settings", "store", "wsgi.py"],
)
def test_nobody_knows_the_name_of_a_driver(layer: str) -> None:
    """As a word by itself; that none of their packages is imported, import-linter sees to."""
    assert len(DRIVERS) >= 5
    place = PACKAGE / layer
    for path in [place] if place.is_file() else place.rglob("*.py"):
        said = {
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant)
        }
        assert not said & DRIVERS, path


def test_the_layers_are_checked() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    kinds = [contract["type"] for contract in settings["tool"]["importlinter"]["contracts"]]
    assert "layers" in kinds
    assert "lint-imports" in (ROOT / "Makefile").read_text(encoding="utf-8")
