"""What is installed is what the locks name, to the last byte; what a build would fetch by itself is no exception."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
LOCKS: Final = (
    "requirements.lock",
    "requirements-dev.lock",
    "requirements-uv.lock",
    "tests/lab/openstack/build.lock",
    "tests/lab/openstack/requirements.lock",
    "benchmarks/openstack_clients.txt",
)
NPM_LOCK: Final = "tests/clients/typescript/package-lock.json"
# Each of these decides alone that nothing unknown comes along: hashes, or one file and nothing around it.
SAFE: Final = ("--require-hashes", "*hashed", "--no-build-isolation", "--no-deps dist/stillframe-*.whl")
# What a user has beside Stillframe, in an environment of its own, is the user's affair.
BESIDE: Final = ("pip install ansible ",)


def installations() -> list[str]:
    """Every line of the project that has pip or uv install something."""
    said = subprocess.run(
        ["git", "grep", "--untracked", "-hE", r"pip[\", ]+(install|sync|wheel)", "--", ".", ":!tests/gate"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted({line.strip() for line in said.stdout.splitlines()})


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_of_a_lock_has_its_hash(name: str) -> None:
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", (ROOT / name).read_text())[1:]
    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry or "==" not in entry] == []


def test_every_package_of_the_lock_of_npm_has_its_hash() -> None:
    entries = {name: entry for name, entry in json.loads((ROOT / NPM_LOCK).read_text())["packages"].items() if name}
    assert len(entries) > 10
    assert [name for name, entry in entries.items() if not entry["integrity"].startswith("sha512-")] == []


def test_packages_of_npm_are_installed_by_their_lock_alone() -> None:
    told = re.findall(r"\$\(NPM\) (.*)", (ROOT / "Makefile").read_text())
    assert told == ["update --package-lock-only", "ci --loglevel error"]


def test_every_installation_asks_for_hashes_or_for_nothing_but_one_file() -> None:
    found = installations()
    assert len(found) >= 8
    assert [line for line in found if not any(sign in line for sign in (*SAFE, *BESIDE))] == []


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_the_tools_that_build_the_package_are_in_its_locks(name: str) -> None:
    locked = set(re.findall(r"(?m)^([a-z0-9-]+)==", (ROOT / name).read_text()))
    assert {"hatchling", "editables", "pluggy", "pathspec", "packaging", "tomlkit", "trove-classifiers"} <= locked
