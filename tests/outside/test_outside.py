"""A driver of another distribution: it is chosen by a setting, and no line of ours knows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

SHELF: Final = Path(__file__).parent / "shelf"
SRC: Final = Path(__file__).resolve().parents[2] / "src" / "stillframe"
_PATIENCE: Final = 600


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution in a folder of its own."""
    target = tmp_path_factory.mktemp("installed")
    uv = [str(Path(sys.executable).with_name("uv")), "--offline", "--quiet"]
    where = ["--python", sys.executable, "--target", str(target), str(SHELF)]
    subprocess.run([*uv, "pip", "install", "--no-deps", "--no-build-isolation", *where], check=True, timeout=_PATIENCE)
    return target


def run(installed: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, "-m", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )


def doctor(installed: Path, folder: Path, settings: str) -> subprocess.CompletedProcess[str]:
    config = folder / "stillframe.conf"
    config.write_text(f"[DEFAULT]\nstate_dir = {folder}/state\n{settings}")
    return run(installed, "stillframe.cli.main", "--config-file", str(config), "doctor", "-f", "json")


def test_the_driver_passes_the_suites(installed: Path) -> None:
    options = ["-q", "-p", "no:cacheprovider", "-c", str(SHELF / "pyproject.toml")]
    done = run(installed, "pytest", *options, str(SHELF / "contract.py"))
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


def test_doctor_asks_it_how_it_is(installed: Path, tmp_path: Path) -> None:
    shelf = f"[drivers]\ncompute = memory\nstorage = shelf\n[shelf]\nfolder = {tmp_path}\n"
    done = doctor(installed, tmp_path, shelf)
    told = {one["check"]: (one["result"], one["detail"]) for one in json.loads(done.stdout)}
    assert told["drivers"] == ("ok", "compute memory, storage shelf")
    assert told["shelf"] == ("ok", str(tmp_path))
    # Whoever has chosen the reference by mistake learns why there are no instances.
    assert (told["memory"][0], "made by code" in told["memory"][1]) == ("warn", True)


def test_a_driver_that_names_no_sources_stands_alone(installed: Path, tmp_path: Path) -> None:
    several = f"[drivers]\ncompute = memory\nstorage = memory, shelf\n[shelf]\nfolder = {tmp_path}\n"
    told = {
        one["check"]: (one["result"], one["detail"]) for one in json.loads(doctor(installed, tmp_path, several).stdout)
    }
    assert told["drivers"][0] == "fail"
    assert "'shelf' does not say which volumes are its own, so that it stands alone" in told["drivers"][1]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("[shelf]\nfoldr = x\n", "There is no option foldr in [shelf]"),
        ("[drivers]\nstorage = shelf\n", "shelf.folder: the shelf needs a folder"),
        ("[drivers]\nstorage = shlf\n", "there are: cinder, files, memory, shelf, storage_virtualize"),
        ("[drivers]\ncompute = shelf\n", "there is no compute driver 'shelf'; there are: memory, nova, qemu"),
    ],
)
def test_the_settings_of_a_driver_are_looked_at_as_ours_are(
    installed: Path, tmp_path: Path, settings: str, told: str
) -> None:
    done = doctor(installed, tmp_path, settings)
    assert done.returncode == 2
    assert told in done.stderr


def test_no_line_of_ours_knows_it() -> None:
    assert [path for path in SRC.rglob("*.py") if "shelf" in path.read_text(encoding="utf-8").lower()] == []
