"""What CONTRIBUTING.md tells a newcomer is there: the paths, the commands, and what they do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE: Final = (ROOT / "Makefile").read_text(encoding="utf-8")
PROSE: Final = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
QUOTED: Final = sorted(set(re.findall(r"`([^`\n]+)`", PROSE)))
BLOCKS: Final = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL))
COMMANDS: Final = sorted(
    {" ".join(line.partition("#")[0].split()) for line in BLOCKS.splitlines() if line.strip()}
    | {one for one in QUOTED if one.startswith((".venv/", ".ci/", "make "))}
)
# What a run leaves behind, which a clone has not.
MADE: Final = frozenset({"var/"})
FOLDERS: Final = ("src/", "tests/", "docs/", "changelog.d")


def steps(target: str) -> list[str]:
    """The commands of a target of the Makefile, with those of the targets that it needs."""
    found = re.search(rf"^{target}: *([^#\n|]*).*\n((?:\t.*\n)*)", MAKEFILE, flags=re.MULTILINE)
    assert found, f"the Makefile has no {target}"
    needed = [step for name in found[1].split() if re.match(r"[a-z-]+$", name) for step in steps(name)]
    return [*needed, *found[2].splitlines()]


def test_all_paths_are_there() -> None:
    paths = [one for one in QUOTED if one.startswith(FOLDERS) or one in ("Makefile", "pyproject.toml")]
    paths += [link for link in re.findall(r"\]\(([^)]+)\)", PAGE) if "://" not in link]
    assert len(paths) > 30
    assert [one for one in paths if not (ROOT / one).exists() and one not in MADE] == []


def test_every_folder_of_tests_has_its_place() -> None:
    folders = {one.parent.name for one in (ROOT / "tests").glob("*/__init__.py")}
    untold = {one for one in folders if f"`tests/{one}`" not in PAGE}
    # Played parts and a program to try a cloud by hand: what tests stand on, not tests.
    assert untold <= {"harness", "lab", "probe"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_can_be_given(command: str) -> None:
    program, *arguments = command.split()
    if program == "make":
        steps(arguments[0])
        return
    assert (ROOT / program).exists(), f"{program} is there after make install"
    for argument in arguments:
        assert "/" not in argument or (ROOT / argument).exists(), argument


def test_the_check_is_of_style_types_and_layers() -> None:
    assert "make check       # style, types and layers" in PAGE
    programs = {step.split()[0].rpartition("/")[2] for step in steps("check")}
    assert programs >= {"ruff", "mypy", "lint-imports"}


def test_the_gate_plays_what_is_told() -> None:
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    told = re.findall(r"^\d\. `(make [a-z-]+)`:", PAGE.partition("## The gate")[2], flags=re.MULTILINE)
    assert re.findall(r"make [a-z-]+", gate.rpartition("\n")[0].splitlines()[-1]) == told
    assert steps("test")[: len(steps("check"))] == steps("check")


def test_the_first_command_lists_the_others() -> None:
    done = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    listed = {line.split()[0] for line in done.stdout.splitlines()}
    assert {command.split()[1] for command in COMMANDS if command.startswith("make ")} <= listed
