"""The doctor where something does not answer: it says so, looks at all the rest, and ends."""

from __future__ import annotations

import itertools
import socket
import sqlite3
import ssl
import subprocess
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
import trustme

from stillframe.drivers.files.images import Images
from stillframe.drivers.image_files.files import Files
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.qemu.declaration import Declaration, Declarations, Disk
from tests.attacks.hostile import WAYS, hostile, plain
from tests.lab.filesystems import mounted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.attacks.hostile import Way
    from tests.cli.program import Place

_SECONDS = "4"
_UNANSWERED = f"did not answer within {_SECONDS} s"


@contextmanager
def silent() -> Iterator[str]:
    """The port of a server that takes every connection and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield str(listening.getsockname()[1])


@contextmanager
def frozen(point: Path) -> Iterator[None]:
    """Whoever changes something in this file system waits, and cannot be killed meanwhile."""
    subprocess.run(["fsfreeze", "--freeze", str(point)], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(point)], check=True)


def declare_away(place: Place, point: Path) -> None:
    """Declare an instance with a disk in another file system."""
    disk = point / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    away = Declaration(
        id="0b0c84ac-59f5-4d8b-9d42-4bd29e4f8a1e",
        name="away",
        project_id="default",
        disks=(Disk(name="root", path=disk, format=Format.RAW),),
    )
    Declarations(place.folder / "state" / "instances").add(Files(), Images(), away)


def unanswered(place: Place, level: str = "fail") -> tuple[int, set[str], set[str]]:
    """The exit code, the checks that had no answer, and those that had one."""
    done = place.run("doctor", "--timeout", _SECONDS, "-f", "json")
    told = {one["check"] for one in done.document if one["detail"] == _UNANSWERED}
    assert {one["result"] for one in done.document if one["check"] in told} <= {level}
    assert all(one["mend"] for one in done.document if one["check"] in told)
    return done.code, told, {one["check"] for one in done.document} - told


def test_a_database_that_takes_connections_and_says_nothing(place: Place) -> None:
    place.instance("there", root=b"r")
    with silent() as port:
        place.configure(database__connection=f"postgresql+psycopg://u:secret@127.0.0.1:{port}/db")
        code, told, others = unanswered(place)
    assert (code, told) == (1, {"database"})
    assert others >= {"settings", "policy", "drivers", "instance there", "copies that are lost"}


def test_a_database_that_somebody_has_locked(place: Place) -> None:
    place.configure()
    place.good("db", "upgrade")
    with closing(sqlite3.connect(place.folder / "state" / "stillframe.sqlite")) as other:
        other.execute("BEGIN IMMEDIATE")
        code, told, others = unanswered(place)
    assert (code, told) == (1, {"database"})
    assert others >= {"drivers", "copies that are lost"}


def test_a_job_board_that_takes_connections_and_says_nothing(place: Place) -> None:
    place.instance("there", root=b"r")
    with silent() as port:
        place.configure(job_board__backend="redis", job_board__port=port, job_board__timeout="600")
        code, told, others = unanswered(place, "warn")
    # Operations are found without it.
    assert (code, told) == (0, {"job board"})
    assert others >= {"settings", "drivers", "instance there"}


def test_a_file_system_that_does_not_answer(place: Place, tmp_path: Path) -> None:
    place.configure()
    place.good("db", "upgrade")
    place.instance("there", root=b"r")
    with mounted(tmp_path, "ext4", 32 << 20) as point:
        declare_away(place, point)
        with frozen(point):
            code, told, others = unanswered(place)
        assert (code, told) == (1, {f"file system at {point}"})
        assert others >= {"instance there", "instance away", "database", "operations", "copies that are lost"}


def test_a_time_that_cannot_be_waited_for(place: Place) -> None:
    for seconds in ("0", "-1", "nan", "inf", "soon"):
        assert place.run("doctor", f"--timeout={seconds}").code == 2


def test_an_etcd_that_takes_connections_and_says_nothing(place: Place) -> None:
    place.instance("there", root=b"r")
    with silent() as port:
        place.configure(job_board__backend="etcd", job_board__port=port, job_board__timeout="600")
        code, told, others = unanswered(place, "warn")
    assert (code, told) == (0, {"job board"})
    assert others >= {"settings", "drivers", "instance there"}


def on_arrays(place: Place, endpoint: str, **more: str) -> None:
    """Have the volumes lie on an array there, which may take its time."""
    options = {"endpoint": endpoint, "username": "u", "password": "secret", "timeout": "600", **more}
    place.configure(
        drivers__storage="storage_virtualize",
        storage_virtualize__arrays="a",
        **{f"array:a__{name}": value for name, value in options.items()},
    )
    place.good("db", "upgrade")


def test_an_array_that_takes_connections_and_says_nothing(place: Place) -> None:
    with silent() as port:
        on_arrays(place, f"https://127.0.0.1:{port}")
        code, told, others = unanswered(place)
    assert code == 1
    assert "copies" in told
    assert others >= {"settings", "database", "operations"}


def after(first: Way, rest: Way) -> Way:
    """Answer the first request in one way, and all others in another."""
    ways = itertools.chain([first], itertools.repeat(rest))

    def answer(connection: socket.socket) -> None:
        next(ways)(connection)

    return answer


@pytest.mark.parametrize(
    "way",
    [WAYS["drips headers"], after(plain(b'{"token": "good"}'), WAYS["drips a body"])],
    ids=["to whoever signs in", "to whoever has signed in"],
)
def test_an_array_that_drips(place: Place, way: Way) -> None:
    """Each of its bytes comes in time, and its answers never end."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.cert_pem.write_to_path(str(place.folder / "authority.pem"))
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with hostile(way, context) as array:
        on_arrays(place, array.url, ca_file=str(place.folder / "authority.pem"))
        code, told, others = unanswered(place)
        done = place.run("doctor", "--repair", "--yes", "--timeout", _SECONDS)
    assert code == 1
    assert "copies" in told
    assert others >= {"settings", "database", "operations"}
    assert (done.code, "nothing was removed" in done.err, _UNANSWERED in done.err) == (6, True, True), done
    assert len(array.heard) > 1


def test_a_repair_does_not_wait_for_what_says_nothing_and_removes_nothing(place: Place) -> None:
    with silent() as port:
        on_arrays(place, f"https://127.0.0.1:{port}")
        done = place.run("doctor", "--repair", "--yes", "--timeout", _SECONDS)
        assert (done.code, "nothing was removed" in done.err, _UNANSWERED in done.err) == (6, True, True), done
        place.configure(database__connection=f"postgresql+psycopg://u:secret@127.0.0.1:{port}/db")
        done = place.run("doctor", "--repair", "--yes", "--timeout", _SECONDS)
    assert (done.code, "the database cannot be used" in done.err, _UNANSWERED in done.err) == (6, True, True), done
    assert "secret" not in done.err


def test_a_removal_that_is_not_answered_is_told_as_unknown_and_keeps_up_no_other(place: Place, tmp_path: Path) -> None:
    place.configure(engine__janitor_grace="0")
    place.good("db", "upgrade")
    place.instance("near", root=b"r")
    near = place.folder / "disks" / ".stillframe" / "empty"
    with mounted(tmp_path, "ext4", 32 << 20) as point:
        declare_away(place, point)
        far = point / ".stillframe" / "empty"
        for folder in (near, far):
            folder.mkdir(parents=True)
            folder.parent.chmod(0o700)
        with frozen(point):
            done = place.run("doctor", "--repair", "--yes", "--timeout", _SECONDS, "-f", "json")
        results = {one["what"]: (one["result"], one["detail"]) for one in done.document}
        assert (done.code, results[str(near)][0], near.exists()) == (1, "removed", False), done
        assert results[str(far)][0] == "failed"
        assert "look again" in results[str(far)][1]
