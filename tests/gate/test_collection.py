"""What is tested depends on nothing around: two runs on two machines, at two times, are about the same tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).resolve().parents[2]


def collected(surroundings: Mapping[str, str]) -> list[str]:
    """The ids of all tests, in order, as a pytest of its own names them."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command, cwd=ROOT, env={**environment, **surroundings}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_tests_are_the_same_ones_whenever_and_wherever_they_are_collected(tmp_path: Path) -> None:
    here = {"PYTHONHASHSEED": "1"}
    # Collecting takes seconds, so what holds the time differs between the two, too.
    elsewhere = {"PYTHONHASHSEED": "2", "TZ": "NPT-5:45", "HOME": str(tmp_path), "LC_ALL": "C", "COLUMNS": "60"}
    first, second = collected(here), collected(elsewhere)
    assert len(first) > 1000
    assert first == second
