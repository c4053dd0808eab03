"""Earlier releases, taken from the history of the project, to be run beside this one."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

_ROOT: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Release:
    """A release whose package is imported from `source`; `claims`: it has them, and so any number of workers."""

    name: str
    source: Path
    claims: bool = True


#: What is in the working tree.
THIS: Final = Release("this", _ROOT / "src")

#: The commits by which earlier releases are known, and whether each has claims.
FIRST: Final = "774b346"
BEFORE: Final = "642be15"
#: With one package of drivers for QEMU and image files.
ONE_LOCAL: Final = "0bf9a484"
_CLAIMS: Final = {FIRST: False, BEFORE: True, ONE_LOCAL: True}


def release(commit: str, folder: Path) -> Release:
    """An earlier release, unpacked below a folder.

    Fails where the history is missing, for nothing would be tried then; skips in an archive of the source and in a
    shallow clone, which were made without it.
    """
    if not (_ROOT / ".git").exists():
        pytest.skip(f"this is no clone but an archive of the source: it has no history to take {commit} from")
    if shutil.which("git") is None:
        pytest.fail(f"{commit} is taken from the history with git; apt-get install --yes git")
    done = _git("archive", "--format=tar", commit, "src", "pyproject.toml")
    if done.returncode and _git("rev-parse", "--is-shallow-repository").stdout.strip() == b"true":
        pytest.skip(f"this clone is shallow: {commit} is not in its history; git fetch --unshallow")
    if done.returncode:
        pytest.fail(f"{commit} is not in the history of this clone: {done.stderr.decode(errors='replace').strip()}")
    place = folder / commit
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(place)  # noqa: S202 -- it is of our own history, and Python 3.11.2 knows no filters
    project = tomllib.loads((place / "pyproject.toml").read_text())["project"]
    register(place / "src", project.get("entry-points", {}))
    return Release(commit, place / "src", _CLAIMS[commit])


def register(source: Path, entry_points: Mapping[str, Mapping[str, str]]) -> None:
    """Have a package found as if installed from `source`, in the place of this one, with entry points by group."""
    written = source / "stillframe-0.dist-info"
    written.mkdir()
    (written / "METADATA").write_text("Metadata-Version: 2.1\nName: stillframe\nVersion: 0\n")
    lines = [
        line
        for group, points in entry_points.items()
        for line in (f"[{group}]", *(f"{name} = {point}" for name, point in points.items()))
    ]
    (written / "entry_points.txt").write_text("\n".join([*lines, ""]))


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    # The clone may belong to somebody else than the tests run as.
    command = ["git", "-c", f"safe.directory={_ROOT}", "-C", str(_ROOT), *arguments]
    return subprocess.run(command, capture_output=True, check=False)
