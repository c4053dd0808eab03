"""Whoever chooses a text that ends up in a log or on a terminal begins no line there, and moves no cursor."""

from __future__ import annotations

import base64
import csv
import io
import json
import logging
import os
import re
import stat
import subprocess
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import bcrypt
import pytest
import yaml  # type: ignore[import-untyped]
from oslo_log import formatters

from stillframe.domain.printable import printable
from stillframe.logs.lines import Lines
from stillframe.logs.setup import ContextLines
from stillframe.settings import new_conf
from tests.attacks.greed import connected
from tests.cli.program import PROGRAM, Place, Process, started

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A line that would look like one of ours, an order to a terminal, and marks that turn the direction of writing.
FORGED: Final = (
    "x\n2026-01-01 00:00:00.000 1 INFO stillframe [-] all is well\x1b]0;owned\x07\x1b[2J\r\x85\u2028\u202egood\x00"
)
_HARMFUL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_OURS: Final = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (\d+) [A-Z]+ [\w.]+ ")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(tmp_path_factory.mktemp("forged"))
    users = made.folder / "htpasswd"
    users.write_bytes(b"alice:" + bcrypt.hashpw(b"right", bcrypt.gensalt(4)) + b"\n")
    made.configure(
        auth_strategy="http_basic",
        http_basic__user_file=str(users),
        http_basic__grants="alice:default:member",
        debug="true",
    )
    made.variables.update(OS_AUTH_TYPE="http_basic", OS_USERNAME="alice", OS_PASSWORD="right", PYTHONWARNINGS="ignore")
    return made


@pytest.fixture(scope="module")
def process(place: Place) -> Iterator[Process]:
    with started(place, "serve") as served:
        yield served


@pytest.fixture
def url(process: Process) -> str:
    return next(word for word in process.said.split() if word.startswith("http://"))


def assert_lines_of_ours(process: Process) -> None:
    """Every line of the log is one that the service has begun."""
    text = process.log.read_bytes().decode()
    lines = text.split("\n")
    begun = next(number for number, line in enumerate(lines) if _OURS.match(line))
    for line in lines[begun:]:
        found = _OURS.match(line)
        assert not line or (found and int(found[1]) == process.process.pid), line
        assert not _HARMFUL.search(line), ascii(line)


def sent(url: str, *parts: bytes) -> bytes:
    with connected(url) as connection:
        connection.sendall(b"".join(parts))
        return connection.recv(1 << 16)


def basic(user: str, password: str) -> bytes:
    return b"Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()) + b"\r\n"


class TestLog:
    def test_no_part_of_a_request_begins_a_line(self, process: Process, url: str) -> None:
        host, good = b"Host: localhost\r\n", basic("alice", "right")
        path = b"/volume/v3/default/instance-snapshots"
        act = b"POST /compute/v2.1/default/servers/x/action HTTP/1.1\r\n"
        bodies = [
            json.dumps({FORGED: 1}).encode(),
            json.dumps({"vm-snapshot": {"name": "n", FORGED: FORGED}}).encode(),
            json.dumps({"vm-restore": {"instance_snapshot_id": FORGED}}).encode(),
            FORGED.encode(),
        ]
        escaped = "".join(f"%{byte:02x}" for byte in FORGED.encode()).encode()
        raw = FORGED.replace("\n", "").replace("\r", "").replace("\x00", "").encode()
        requests = [
            b"GET " + path + b" HTTP/1.1\r\n" + host + basic(FORGED, "wrong") + b"\r\n",
            b"GET " + path + b" HTTP/1.1\r\n" + host + basic("alice", FORGED) + b"\r\n",
            b"GET " + path + b" HTTP/1.1\r\n" + host + b"Authorization: " + raw + b"\r\n\r\n",
            b"GET " + path + b" HTTP/1.1\r\n" + host + b"Authorization: Basic " + raw + b"\r\n\r\n",
            b"GET " + path + b"/" + escaped + b" HTTP/1.1\r\n" + host + good + b"\r\n",
            b"GET /" + escaped + b" HTTP/1.1\r\n" + host + good + b"\r\n",
            b"GET " + path + b"?" + escaped + b"=" + escaped + b" HTTP/1.1\r\n" + host + good + b"\r\n",
            b"GET " + path + b"?marker=" + escaped + b" HTTP/1.1\r\n" + host + good + b"\r\n",
            b"GET " + path + b" HTTP/1.1\r\nHost: " + raw + b"\r\n" + good + b"\r\n",
            b"GET " + path + b" HTTP/1.1\r\n" + host + good + b"X-Openstack-Request-Id: " + raw + b"\r\n\r\n",
            b"GET " + path + b" HTTP/1.1\r\n" + host + good + b"X-Forwarded-For: " + raw + b"\r\n\r\n",
            b"GET " + path + b" HTTP/1.1\r\n" + host + good + raw + b": " + raw + b"\r\n\r\n",
            raw + b" " + path + b" HTTP/1.1\r\n" + host + good + b"\r\n",
            *(
                act + host + good + kind + b"Content-Length: %d\r\n\r\n" % len(body) + body
                for body in bodies
                for kind in (b"Content-Type: application/json\r\n", b"Content-Type: " + raw + b"\r\n")
            ),
        ]
        for one in requests:
            assert sent(url, one).startswith(b"HTTP/1."), one
        assert_lines_of_ours(process)
        assert "all is well" in process.log.read_text()

    @pytest.mark.parametrize("kind", ["context", "plain", "json"])
    def test_nothing_that_is_logged_begins_a_line(self, kind: str) -> None:
        formatter, fmt = formatter_of(kind)
        said = io.StringIO()
        handler = logging.StreamHandler(said)
        handler.setFormatter(formatter)
        log = logging.Logger("of.a.test")  # noqa: LOG001  # nobody else shall find it
        log.addHandler(handler)
        log.warning("the guest says %s", FORGED)
        log.warning(FORGED)
        try:
            try:
                raise ValueError(FORGED)  # noqa: TRY301
            except ValueError as error:
                error.add_note(FORGED)
                raise RuntimeError(FORGED) from error
        except RuntimeError:
            log.exception("it broke: %s", FORGED)
            log.exception("it broke", exc_info=ExceptionGroup(FORGED, [OSError(5, FORGED)]))
        log.warning(FORGED, stack_info=True)
        text = said.getvalue()
        assert "all is well" in text
        assert not _HARMFUL.search(text)
        assert not [line for line in text.split("\n") if line.startswith("2026-01-01")]
        assert fmt is None or not [line for line in text.split("\n") if re.search(fmt, line)]

    def test_what_is_plain_stays_as_it_is(self) -> None:
        for text in ("", "snapshot 'Ä ö 漢字' of vm-1: 50 %", "a\\nb"):
            assert printable(text) == text
        assert printable("a\tb\x1b\ud800\u200b") == "a\\tb\\x1b\\ud800\\u200b"


def formatter_of(kind: str) -> tuple[logging.Formatter, str | None]:
    """A formatter as the service uses it, and what a line of the text that is forged would look like."""
    if kind == "json":
        return formatters.JSONFormatter(), None
    if kind == "plain":
        return Lines("%(name)s: %(message)s"), "^good"
    conf = new_conf()
    conf([], default_config_files=[], default_config_dirs=[])
    return ContextLines(project="p", version="v", datefmt=None, config=conf), r"of\.a\.test (\S+ )?2026-01-01"


class TestTerminal:
    def test_no_name_reaches_the_terminal_as_it_is(self, place: Place, process: Process) -> None:
        assert process.process.poll() is None
        place.instance("i", root=b"r")
        name = FORGED.replace("\x00", "")
        created = place.good("snapshot", "create", name, "--instance", "i", "--description", name, "--wait")
        said = created.out + created.err
        for form in ("table", "value", "csv", "yaml", "json"):
            done = place.good("snapshot", "list", "--long", "-f", form)
            said += done.out + done.err
        for command in (
            ("snapshot", "show", name),
            ("snapshot", "show", "no" + name),
            ("snapshot", "create", name, "--instance", "no" + name),
            ("snapshot", "restore", name, "--instance", "i", "--wait"),
        ):
            done = place.run(*command)
            said += done.out + done.err
        for typed in (["snapshot", "list"], ["snapshot", "create", name, "--instance", "i", "--wait"]):
            _code, shown = place.at_a_terminal(*typed)
            # The library that draws progress moves the cursor by itself, and a terminal ends lines by two characters.
            assert "owned\x07" not in shown
            assert "\x1b[2J" not in shown
        assert not _HARMFUL.search(said), ascii(said)
        assert not [line for line in said.split("\n") if line.startswith("2026-01-01")]
        assert_lines_of_ours(process)

    def test_programs_read_what_was_written(self, place: Place, process: Process) -> None:
        assert process.process.poll() is None
        place.instance("j", root=b"r")
        name = f"{uuid.uuid4()} $(touch {place.folder}/run) `touch {place.folder}/run` \\ \" ' \n\x1b[31m!"
        created = place.good("snapshot", "create", name, "--instance", "j", "--wait", "-f", "json").document
        assert created["name"] == name

        def shown(form: str) -> str:
            return place.good("snapshot", "show", created["id"], "-f", form, "-c", "name", "-c", "id").out

        assert json.loads(shown("json")) == {"name": name, "id": created["id"]}
        assert yaml.safe_load(shown("yaml")) == {"name": name, "id": created["id"]}
        assert sorted(shown("value").splitlines()) == sorted([printable(name), created["id"]])
        listed = place.good("snapshot", "list", "--name", name, "-f", "csv", "-c", "name").out
        assert list(csv.reader(io.StringIO(listed), escapechar="\\"))[1:] != []
        # What scripts do with it.
        shell = ["sh", "-c", 'eval "$1"; printf %s "$name"', "sh", shown("shell")]
        assert subprocess.run(shell, capture_output=True, text=True, check=True).stdout == printable(name)
        assert not (place.folder / "run").exists()


class TestSecrets:
    @pytest.mark.parametrize(
        "url",
        [
            "postgresql+psycopg://u:se@cret@127.0.0.1:9/db",
            "postgresql+psycopg://u:se/cret@127.0.0.1:9/db",
            "postgresql+psycopg://u:se@cr/et@127.0.0.1:9/db",
            "postgresql+psycopg://u:secret@127.0.0.1:secret/db",
            "mysql+pymysql://u:se@cret@127.0.0.1:9/db",
            "mariadb+pymysql://u:secret@127.0.0.1:9/db",
            "nothing:secret@that/fits",
            "none://u:secret@127.0.0.1/db",
        ],
    )
    def test_no_part_of_a_password_of_a_database_is_told(self, tmp_path: Path, url: str) -> None:
        place = Place(tmp_path)
        place.configure(database__connection=url)
        for command in (("doctor",), ("db", "check"), ("--debug", "serve")):
            done = subprocess.run(
                [*PROGRAM, *command], env=place.environment(), capture_output=True, text=True, timeout=180, check=False
            )
            said = done.stdout + done.stderr
            assert done.returncode != 0
            assert not re.search(r"secret|cret@|\bcret\b|\bet@|se@|se/c", said), said

    def test_how_to_write_a_password_is_told(self, tmp_path: Path) -> None:
        place = Place(tmp_path)
        place.configure(database__connection="postgresql+psycopg://u:p@ss@127.0.0.1:9/db")
        assert "'@' as %40" in place.run("db", "check").err
        place.configure(database__connection="postgresql+psycopg://u:p%40ss@127.0.0.1:9/db")
        assert place.run("db", "check").code == 6

    def test_no_password_of_a_board_is_told(self, tmp_path: Path) -> None:
        place = Place(tmp_path)
        place.configure(
            job_board__backend="redis", job_board__port="9", job_board__timeout="1", job_board__password="secret"
        )
        done = place.run("doctor")
        assert "redis" in done.out
        assert "secret" not in done.out + done.err


class TestModes:
    @pytest.mark.parametrize("umask", [0o000, 0o022])
    def test_nobody_else_reads_what_the_service_makes(self, tmp_path: Path, umask: int) -> None:
        place = Place(tmp_path)
        log = tmp_path / "logs" / "stillframe.log"
        log.parent.mkdir()
        place.configure(log_file=str(log))
        with ExitStack() as stack:
            before = os.umask(umask)
            try:
                stack.enter_context(started(place, "serve"))
            finally:
                os.umask(before)
            place.instance("i", root=b"r")
            place.good("snapshot", "create", "s", "--instance", "i", "--wait")
            state = place.folder / "state"
            made = [state, *state.rglob("*")]
            beside = {f"stillframe.sqlite{suffix}" for suffix in ("", "-wal", "-shm")}
            assert beside <= {one.name for one in made}
            # A log that was moved away is begun anew.
            log.rename(log.with_suffix(".1"))
            place.good("snapshot", "list")
            made += [log, log.with_suffix(".1")]
            assert log.exists()
            modes = {str(one): oct(stat.S_IMODE(one.stat().st_mode)) for one in made if open_to_others(one)}
        assert modes == {}

    def test_a_database_that_others_may_read_is_closed(self, tmp_path: Path) -> None:
        place = Place(tmp_path)
        place.configure()
        place.good("db", "upgrade")
        database = tmp_path / "state" / "stillframe.sqlite"
        database.chmod(0o644)
        place.good("db", "upgrade")
        assert stat.S_IMODE(database.stat().st_mode) == 0o600


def open_to_others(path: Path) -> bool:
    return path.exists() and bool(path.stat().st_mode & 0o077)
