"""Dumps of a database and putting them back, with the tools that each kind of database has for it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa

_PATIENCE: Final = 120.0


class Dump:
    """The state of a database at the moment in which this was made."""

    def __init__(self, url: sa.URL, folder: Path) -> None:
        self._url = url
        self._file = folder / "dump"
        if url.get_backend_name() == "sqlite":
            _run(["sqlite3", str(url.database), f".backup {self._file}"])
        elif url.get_backend_name() == "postgresql":
            _run([*_client("pg_dump", url), "--format=custom", f"--file={self._file}", str(url.database)])
        else:
            _run([*_client("mariadb-dump", url), "--single-transaction", str(url.database)], output=self._file)

    def put_back(self) -> None:
        """Have the database be as it was, whether the service runs or not."""
        name = str(self._url.database)
        if self._url.get_backend_name() == "sqlite":
            _run(["sqlite3", "-cmd", ".timeout 60000", name, f".restore {self._file}"])
        elif self._url.get_backend_name() == "postgresql":
            for statement in (f"DROP DATABASE {name} WITH (FORCE)", f"CREATE DATABASE {name}"):
                _run([*_client("psql", self._url), "--quiet", f"--command={statement}", "postgres"])
            _run([*_client("pg_restore", self._url), "--exit-on-error", f"--dbname={name}", str(self._file)])
        else:
            _run([*_client("mariadb", self._url), name], given=self._file)


def _client(program: str, url: sa.URL) -> list[str]:
    where = [f"--host={url.host}", f"--port={url.port}"]
    if url.get_backend_name() != "postgresql":
        return [program, "--no-defaults", f"--user={url.username}", *where]
    releases = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    # That of the server; another one may be the first on the path.
    return [str(releases[-1] / program) if releases else program, f"--username={url.username}", *where]


def _run(command: Sequence[str], *, given: Path | None = None, output: Path | None = None) -> None:
    with (given or Path("/dev/null")).open("rb") as stdin, (output or Path("/dev/null")).open("wb") as stdout:
        done = subprocess.run(
            command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, check=False, timeout=_PATIENCE, text=True
        )
    assert done.returncode == 0, done.stderr
