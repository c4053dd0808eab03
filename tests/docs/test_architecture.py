"""The page about the architecture tells the tree as it is."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = ROOT / "src" / "stillframe"
PAGE: Final = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
CHART: Final = PAGE.partition("```mermaid\nflowchart TD\n")[2].partition("```")[0]
#: Beyond these, "about" is no word for it any more.
LONGEST_FUNCTION: Final = 60
LONGEST_FILE: Final = 440


def modules(folder: Path) -> set[str]:
    """The packages and modules in a folder."""
    return {one.stem for one in folder.iterdir() if not one.name.startswith("_") and one.suffix in ("", ".py")}


def layers() -> dict[str, int]:
    """How far down each module of the package stands, by the contract that is checked."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [one for one in settings["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    return {name: depth for depth, layer in enumerate(contract["layers"]) for name in layer.split(" | ")}


def test_every_part_of_the_package_is_told() -> None:
    told = set(re.findall(r"`(\w+)(?:\.py|/)?`", PAGE)) | set(re.findall(r'(\w+)\["\1: ', CHART))
    assert modules(PACKAGE) - told == set()


def test_every_path_that_is_told_is_there() -> None:
    paths = set(re.findall(r"`([a-z_]+/[a-z_/]*(?:\.py)?)`", PAGE))
    assert len(paths) > 20
    assert [one for one in paths if not (PACKAGE / one).exists() and not (ROOT / one).exists()] == []


def test_the_platforms_are_those_that_there_are() -> None:
    found = re.search(r'drivers\["drivers: ([a-z_, ]+)"\]', CHART)
    assert found is not None
    there = {one.parent.name for one in (PACKAGE / "drivers").glob("*/platform.py")}
    assert set(found[1].split(", ")) == there


def test_the_chart_goes_downwards_as_the_imports_do() -> None:
    depth = layers()
    assert depth.keys() == modules(PACKAGE)
    arrows = re.findall(r"^ *(\w+)(?:\[[^\]]*\])? --> ([\w &]+?)(?:\[|$)", CHART, flags=re.MULTILINE)
    assert len(arrows) >= 8
    for above, below in arrows:
        for one in below.split(" & "):
            assert depth[above] < depth[one], (above, one)


def test_functions_and_files_are_short() -> None:
    long = []
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "migrations" in path.parts:
            continue
        if len(text.splitlines()) > LONGEST_FILE:
            long.append(path.name)
        long += [
            f"{path.name}: {node.name}"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
        ]
    assert long == []
