"""Real database servers for tests: PostgreSQL and MariaDB on loopback, started once a session and always stopped.

Their defaults are as unlike SQLite's as they can be (a collation by dictionary, a character set of one byte), so that
whatever the store leaves to the server's defaults is found out. Nothing of them outlives the tests, hence nothing is
synced to disk.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import sqlalchemy as sa

from stillframe.store.database import connect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stillframe.store.database import Database

__all__ = [
    "KINDS",
    "Server",
    "database",
    "database_server",
    "database_url",
    "mariadb_server",
    "postgresql_server",
    "server_kind",
]

KINDS: Final = ("sqlite", "postgresql", "mariadb")

_INSTALL: Final = "apt-get install --yes --no-install-recommends postgresql mariadb-server"
_PATIENCE: Final = 60.0


class Server:
    """One database server in a folder of its own; `url` is that of its maintenance database."""

    command: Sequence[str]
    url: sa.URL
    # What the server takes as "drop your clients and end".
    ending: signal.Signals

    def __init__(self, folder: Path, owner: str) -> None:
        self.folder = folder
        self.owner = owner if os.geteuid() == 0 else None
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        if self.owner is not None:
            account = pwd.getpwnam(self.owner)
            os.chown(folder, account.pw_uid, account.pw_gid)

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            command = [*self.as_owner(), f"--pdeathsig={self.ending.name[3:]}", "--", *self.command]
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                with engine.connect():
                    return
            except sa.exc.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    pytest.fail(f"the server did not start: {error}\n{(self.folder / 'log').read_text()[-3000:]}")
                time.sleep(0.05)

    @property
    def process_id(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self, how: signal.Signals | None = None) -> None:
        """End it, by default in order; `SIGKILL` is a crash."""
        if self._process is None:
            return
        self._process.send_signal(how or self.ending)
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def create_database(self) -> sa.URL:
        name = f"test_{uuid.uuid4().hex}"
        self._execute(f"CREATE DATABASE {name}")
        return self.url.set(database=name)

    def drop_database(self, url: sa.URL) -> None:
        self._execute(f"DROP DATABASE {url.database}")

    def as_owner(self) -> list[str]:
        """The start of a command that runs as the server's account; neither server runs as root."""
        if self.owner is None:
            return ["setpriv"]
        return ["setpriv", f"--reuid={self.owner}", f"--regid={self.owner}", "--init-groups"]

    def prepare(self, command: Sequence[str]) -> None:
        done = subprocess.run(
            [*self.as_owner(), "--", *command],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            text=True,
        )
        if done.returncode != 0:
            pytest.fail(f"{' '.join(command)} failed:\n{done.stdout}")

    def _execute(self, statement: str) -> None:
        engine = sa.create_engine(self.url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)


class PostgreSQL(Server):
    """PostgreSQL, sorting by an English dictionary unless told otherwise."""

    ending = signal.SIGINT

    def __init__(self, folder: Path, binaries: Path) -> None:
        super().__init__(folder, "postgres")
        data = folder / "data"
        self.url = sa.URL.create("postgresql+psycopg", "tester", host="127.0.0.1", port=self.port, database="postgres")
        self.prepare(
            [
                *(str(binaries / "initdb"), "--pgdata", str(data), "--auth=trust", "--username=tester", "--no-sync"),
                *("--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"),
            ]
        )
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "32MB",
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "autovacuum": "off",
        }
        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        self.command = [str(binaries / "postgres"), "-D", str(data), *options]

    def drop_database(self, url: sa.URL) -> None:
        self._execute(f"DROP DATABASE {url.database} WITH (FORCE)")


class MariaDB(Server):
    """MariaDB, with a character set of one byte and no regard for case unless told otherwise."""

    ending = signal.SIGTERM

    def __init__(self, folder: Path, binary: str) -> None:
        super().__init__(folder, "mysql")
        data = folder / "data"
        self.url = sa.URL.create("mariadb+pymysql", "root", host="127.0.0.1", port=self.port, database="mysql")
        # At its start a server removes the temporary tables that it finds there, and a server whose own ones vanish in
        # the middle of a query crashes.
        own = ["--no-defaults", f"--datadir={data}", f"--tmpdir={folder}", "--skip-name-resolve"]
        if not data.exists():
            self.prepare(["mariadb-install-db", *own, "--skip-test-db", "--auth-root-authentication-method=normal"])
        settings = {
            "bind-address": "127.0.0.1",
            "port": str(self.port),
            "socket": str(folder / "socket"),
            "pid-file": str(folder / "pid"),
            "character-set-server": "latin1",
            "collation-server": "latin1_swedish_ci",
            "max-connections": "200",
            "innodb-buffer-pool-size": "64M",
            "innodb-log-file-size": "16M",
            "innodb-flush-log-at-trx-commit": "0",
            "innodb-flush-method": "nosync",
            "innodb-doublewrite": "OFF",
            "innodb-file-per-table": "OFF",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        self.command = [binary, *own, *options]


@contextmanager
def database_server(kind: str, *options: str) -> Iterator[Server]:
    """A server of a kind, running, with more options of its own, for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix=f"{kind}-") as folder:
        server = _postgresql(Path(folder)) if kind == "postgresql" else _mariadb(Path(folder))
        server.command = [*server.command, *options]
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Server]:
    """PostgreSQL for this process of the session."""
    with database_server("postgresql") as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Server]:
    """MariaDB for this process of the session."""
    with database_server("mariadb") as server:
        yield server


@pytest.fixture(params=KINDS)
def server_kind(request: pytest.FixtureRequest) -> str:
    """The kind of database a test runs on: each in its turn."""
    return str(request.param)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, server_kind: str, tmp_path: Path) -> Iterator[sa.URL]:
    """The URL of a new, empty database."""
    if server_kind == "sqlite":
        yield sa.make_url(f"sqlite:///{tmp_path / 'stillframe.sqlite'}")
        return
    server: Server = request.getfixturevalue(f"{server_kind}_server")
    url = server.create_database()
    yield url
    server.drop_database(url)


@pytest.fixture
def database(database_url: sa.URL) -> Iterator[Database]:
    """A new, empty database, connected to."""
    opened = connect(database_url.render_as_string(hide_password=False), sqlite_synchronous="OFF")
    yield opened
    opened.close()


def _postgresql(folder: Path) -> Server:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parent.parent.name))
    plain = shutil.which("initdb")
    if not found and plain is None:
        pytest.fail(f"PostgreSQL is not installed; {_INSTALL}")
    return PostgreSQL(folder, found[-1].parent if found else Path(str(plain)).parent)


def _mariadb(folder: Path) -> Server:
    binary = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if binary is None or shutil.which("mariadb-install-db") is None:
        pytest.fail(f"MariaDB is not installed; {_INSTALL}")
    return MariaDB(folder, binary)


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
