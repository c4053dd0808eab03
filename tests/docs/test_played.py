"""README, tutorial and how-to pages, played in one place and in one go, as somebody types them who reads them.

Every block of commands is played as it is printed, or says in an invisible comment above it why it cannot be.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.docs.pages import ROOT, blocks

if TYPE_CHECKING:
    from pathlib import Path

_PATIENCE: Final = 1500
# Those that can be played stand in the order in which they are: what one page makes, the next one uses.
_FIRST: Final = (
    "README.md",
    "docs/tutorial/first-snapshot.md",
    "docs/how-to/declare-an-instance.md",
    "docs/how-to/restore-an-instance.md",
)
_REST: Final = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs/how-to").glob("*.md"))
PAGES: Final = (*_FIRST, *(page for page in _REST if page not in _FIRST))
ALL: Final = [block for page in PAGES for block in blocks(page)]


STAMPS: Final = (".venv/.run-ready", ".venv/.test-ready")


def is_installed(project: Path) -> bool:
    """Whether `make` finds nothing to install in a project's folder."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    asked = subprocess.run(["make", "-q", *STAMPS], cwd=project, env=clean, capture_output=True, text=True, check=False)
    assert asked.returncode in (0, 1), asked.stderr
    return asked.returncode == 0


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The project's folder, as somebody has it who has just installed it."""
    # What is installed from there is installed here, by a path that is soon gone.
    assert is_installed(ROOT), "run `make install` first: a lock, pyproject.toml or the Makefile has changed since"
    folder = tmp_path / "stillframe"
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.name not in ("var", ".git"):
            (folder / path.name).symlink_to(path)
    return folder


def test_every_block_is_read() -> None:
    """Whatever looks like one is one: a shell block in another spelling would be left out silently."""
    for page in PAGES:
        content = (ROOT / page).read_text(encoding="utf-8")
        assert not re.search(r"^ *```(bash|sh|shell)$", content, re.MULTILINE), page
        assert content.count("```console") == len(list(blocks(page))), page
    played = [block for block in ALL if block.how == "played"]
    assert len(played) >= 30
    assert len(ALL) - len(played) <= 80
    assert all(len(block.why) > 10 for block in ALL if block not in played)


@pytest.mark.parametrize(
    "changed", ["requirements.lock", "requirements-dev.lock", "requirements-uv.lock", "pyproject.toml", "Makefile"]
)
def test_a_project_that_has_changed_since_it_was_installed_is_not_played(tmp_path: Path, changed: str) -> None:
    sources = ("Makefile", "pyproject.toml", *(path.name for path in ROOT.glob("requirements*.lock")))
    lock = "tests/clients/typescript/package-lock.json"
    made = (".venv/bin/uv", *STAMPS)
    for moment, name in enumerate((*sources, lock, *made), 1):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((ROOT / name).read_bytes() if name in sources else b"")
        os.utime(path, (moment, moment))
    assert is_installed(tmp_path)
    os.utime(tmp_path / changed)
    assert not is_installed(tmp_path)


@pytest.mark.lasts(60)
def test_the_pages_are_played_in_one_go(checkout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    elsewhere = checkout.parent
    names = {
        "/etc/stillframe/stillframe.conf": f"{checkout}/var/stillframe.conf",
        "/var/lib/stillframe": f"{checkout}/var",
        "/srv/web": f"{elsewhere}/srv/web",
        "/run/web": f"{elsewhere}/run/web",
        "127.0.0.1:8790": f"127.0.0.1:{port}",
    }
    # What the pages take for granted: the disks of an instance of the reader's.
    disks = elsewhere / "srv" / "web"
    disks.mkdir(parents=True)
    (disks / "root.raw").write_bytes(b"root".ljust(1 << 20, b"."))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disks / "data.qcow2"), "1M"], check=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "STILLFRAME_", "MAKE"))}
    environment = {**clean, "STILLFRAME_PORT": port, "HOME": str(elsewhere)}
    played = [block for block in ALL if block.played]
    last = [block for block in played if block.why.startswith("last")]
    script = "set -eo pipefail\n" + "".join(
        block.script(names) for block in [*(block for block in played if block not in last), *reversed(last)]
    )
    said = elsewhere / "run.log"
    with said.open("wb") as output:
        service = subprocess.Popen(["make", "run"], cwd=checkout, env=environment, stdout=output, stderr=output)
    try:
        until = time.monotonic() + _PATIENCE
        while "stillframe serves on " not in said.read_text():
            assert service.poll() is None, said.read_text()
            assert time.monotonic() < until, said.read_text()
            time.sleep(0.1)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=checkout,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    finally:
        service.terminate()
        service.wait(_PATIENCE)
    assert done.returncode == 0, done.stdout
    # curl ends well whatever it is answered.
    for refusal in ('"badRequest"', '"conflictingRequest"', '"itemNotFound"', '"unauthorized"', '"computeFault"'):
        assert refusal not in done.stdout, done.stdout
    assert f"=== {last[0].where}" in done.stdout
