"""The file of the service's token: how it is made, and what is refused with which advice."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stillframe.api.auth import token_file
from stillframe.api.auth.token_file import ensure, find, path_of
from stillframe.domain.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def test_the_token_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    state = tmp_path / "state"
    before = os.umask(0)
    try:
        first = ensure(state)
    finally:
        os.umask(before)
    path = path_of(state)
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    assert len(first) == 43
    assert ensure(state) == first
    kept = find(state)
    assert kept is not None
    assert (kept.token, kept.owner) == (first, os.geteuid())
    assert first not in repr(kept)
    assert [*path.parent.iterdir()] == [path]


def test_each_service_has_another_one_and_deleting_it_makes_the_next(tmp_path: Path) -> None:
    first, other = ensure(tmp_path / "one"), ensure(tmp_path / "two")
    path_of(tmp_path / "one").unlink()
    assert len({first, other, ensure(tmp_path / "one")}) == 3


def test_nothing_is_found_and_nothing_made_where_none_is(tmp_path: Path) -> None:
    assert find(tmp_path / "state") is None
    assert not (tmp_path / "state").exists()


def test_many_that_start_at_once_agree_on_one(tmp_path: Path) -> None:
    found: list[str] = []
    barrier = threading.Barrier(16)

    def start() -> None:
        barrier.wait()
        found.append(ensure(tmp_path / "state"))

    threads = [threading.Thread(target=start) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(set(found))) == (16, 1)
    assert [*path_of(tmp_path / "state").parent.iterdir()] == [path_of(tmp_path / "state")]


def _chmod(mode: int, *, folder: bool = False) -> Callable[[Path], None]:
    return lambda path: (path.parent if folder else path).chmod(mode)


def _replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def _linked_folder(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    path.parent.rename(elsewhere)
    path.parent.symlink_to(elsewhere)


def _written(text: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        path.write_text(text)
        path.chmod(0o600)

    return write


DAMAGES = {
    "readable by its group": _chmod(0o640),
    "readable by all": _chmod(0o604),
    "writable by all": _chmod(0o602),
    "folder of all": _chmod(0o755, folder=True),
    "folder of the group": _chmod(0o710, folder=True),
    "a link": _replaced(lambda path: path.symlink_to("/etc/hostname")),
    "a dangling link": _replaced(lambda path: path.symlink_to("nowhere")),
    "a pipe": _replaced(lambda path: os.mkfifo(path, 0o600)),
    "a folder": _replaced(lambda path: path.mkdir(0o700)),
    "empty": _replaced(_written("")),
    "short": _replaced(_written("secret\n")),
    "two lines": _replaced(_written("x" * 43 + "\n" + "y" * 43 + "\n")),
    "not visible": _replaced(_written("x" * 42 + "\u00e9")),
    "a linked folder": _linked_folder,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_others_may_have_read_or_made_is_refused_and_the_advice_mends_it(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    state = tmp_path / "the state's folder"
    ensure(state)
    damage(path_of(state))
    for look in (ensure, find):
        with pytest.raises(InvalidInput) as caught:
            look(state)
    _, _, advice = caught.value.message.partition("Mend it and start again: ")
    subprocess.run(advice, shell=True, check=True)  # noqa: S602  # as the reader of the message does
    assert len(ensure(state)) == 43


@as_root
@pytest.mark.parametrize("what", ["token", "folder"])
def test_what_belongs_to_somebody_else_is_refused_and_the_advice_mends_it(tmp_path: Path, what: str) -> None:
    state = tmp_path / "state"
    first = ensure(state)
    path = path_of(state)
    os.chown(path if what == "token" else path.parent, NOBODY, NOBODY)
    with pytest.raises(InvalidInput, match="belongs to") as caught:
        ensure(state)
    _, _, advice = caught.value.message.partition("Mend it and start again: ")
    subprocess.run(advice, shell=True, check=True)  # noqa: S602
    assert ensure(state) != first


@as_root
def test_an_operator_finds_the_token_of_the_services_user(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = ensure(state)
    path = path_of(state)
    for one in (path, path.parent):
        os.chown(one, NOBODY, NOBODY)
    kept = find(state)
    assert kept is not None
    assert (kept.token, kept.owner) == (first, NOBODY)
    # But a service of root's does not start with what another user can read.
    with pytest.raises(InvalidInput, match="belongs to"):
        ensure(state)


@as_root
def test_another_user_is_told_whose_it_is_and_gets_nothing() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        # Everything but the token's own folder lets others in.
        Path(place).chmod(0o755)
        _another_user_gets_nothing(Path(place) / "state")


def _another_user_gets_nothing(state: Path) -> None:
    first = ensure(state)
    script = (
        "import os, sys; from pathlib import Path; from stillframe.api.auth import token_file\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "for look in (token_file.find, token_file.ensure):\n"
        "    try: look(Path(sys.argv[1]))\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
        f"print(os.access({str(path_of(state))!r}, os.R_OK))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(state)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Foreign The token of the service cannot be read")
    assert lines[0].endswith("belongs to root")
    assert lines[1].startswith("InvalidInput The token of the service cannot be used")
    assert lines[2] == "False"
    assert first not in done.stdout + done.stderr


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        ensure(tmp_path / "file" / "state")
    assert token_file.path_of(tmp_path) == tmp_path / "auth" / "token"
