"""The units for systemd, as systemd's own tools see them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.serving import DEPLOY

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """All of them, with the program where it is here."""
    program = Path(sys.executable).with_name("stillframe")
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/stillframe/bin", str(program.parent)))
    return tmp_path


def analyzed(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", [unit.name.replace("@", "@8791") for unit in UNITS])
def test_systemd_takes_them_without_a_word(units: Path, name: str) -> None:
    done = analyzed("verify", f"{units}/{name}")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", [unit.name for unit in UNITS])
def test_units_may_do_little(units: Path, name: str) -> None:
    # In tenths: 100 may do everything. The one for the local drivers has to reach devices.
    threshold = "20" if name == "stillframe.service" else "15"
    done = analyzed("security", "--offline=true", "--no-pager", f"--threshold={threshold}", f"{units}/{name}")
    assert done.returncode == 0, done.stdout[-300:]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.name))
def test_units_wait_longer_for_the_end_than_the_service_takes(unit: Path) -> None:
    seconds = int(re.findall(r"^TimeoutStopSec=(\d+)$", unit.read_text(), re.MULTILINE)[0])
    assert seconds > (20 if "api" in unit.name else 42)
