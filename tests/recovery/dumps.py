"""Dumps of a database and putting them back, by the commands that the page on backups prints."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.docs.pages import blocks
from tests.harness.faults import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa

_PAGE: Final = "docs/how-to/back-up-the-database.md"
_PATIENCE: Final = 120.0
_TOOLS: Final = {"sqlite": "sqlite3", "postgresql": "pg_dump|pg_restore", "mariadb": "mariadb"}


class Dump:
    """The state of a database at the moment in which this was made."""

    def __init__(self, url: sa.URL, folder: Path) -> None:
        self._url = url
        self._kind = url.get_backend_name()
        self._file = folder / "dump"
        self._home = folder / "home"
        self._home.mkdir()
        (self._home / ".my.cnf").write_text(
            f"[client]\nhost={url.host}\nport={url.port}\nuser={url.username}\n", encoding="utf-8"
        )
        self._play("Back up")

    def put_back(self) -> None:
        """Have the database be as it was, once nobody works on it any more."""
        if self._kind == "postgresql":
            # A process that has ended has no sessions; within this one the last threads need a moment.
            wait_until(lambda: not self._sessions(), "somebody still works on the database")
        self._play("Put a backup back")

    def put_back_under_its_users(self) -> None:
        """The same under a service that runs, which the page does not advise."""
        name = self._url.database
        if self._kind == "sqlite":
            self._run(f'sqlite3 -cmd ".timeout 60000" {name} ".restore {self._file}"')
        elif self._kind == "postgresql":
            self._run(f"psql --command='DROP DATABASE {name} WITH (FORCE)' postgres")
            self._run(f"createdb {name}")
            self._run(f"pg_restore --exit-on-error --dbname={name} {self._file}")
        else:
            self._play("Put a backup back")

    def back_up_records(self) -> None:
        """Those of the copies, of the state folder that the database lies in."""
        self._play("Back up the records of local copies", "tar")

    def put_records_back(self) -> None:
        """Those that are missing."""
        self._play("Put the records of local copies back", "tar")

    def _sessions(self) -> int:
        listed = self._run("psql --tuples-only --no-align --command='SELECT datname FROM pg_stat_activity' postgres")
        return listed.splitlines().count(str(self._url.database))

    def _play(self, section: str, tools: str | None = None) -> None:
        (found,) = (
            block.text
            for block in blocks(_PAGE)
            if block.section == section and re.search(rf"\b({tools or _TOOLS[self._kind]})\b", block.text)
        )
        for printed, meant in self._names():
            found = re.sub(printed, meant, found)
        self._run(found)

    def _names(self) -> Iterator[tuple[str, str]]:
        """What stands on the page for what is meant here."""
        name = Path(str(self._url.database))
        yield r"/srv/backup/stillframe\.\w+", str(self._file)
        yield r"/srv/backup/records\.tar", str(self._file.with_name("records.tar"))
        yield r"/var/lib/stillframe", str(name.parent)
        yield r"\bstillframe\.sqlite", name.name
        yield r"(?<=chown )stillframe:", f"{os.geteuid()}:{os.getegid()}"
        yield r"(?<=--owner )stillframe", str(self._url.username)
        yield r"(?<![/.\w])stillframe(?=_aside|\s|$)", name.name

    def _run(self, commands: str) -> str:
        releases = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        # Those of the server's release; others may be the first on the path.
        path = ":".join([*map(str, releases[-1:]), os.environ["PATH"]])
        server = {"PGHOST": str(self._url.host), "PGPORT": str(self._url.port), "PGUSER": str(self._url.username)}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            env={**os.environ, **server, "PATH": path, "HOME": str(self._home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_PATIENCE,
            text=True,
        )
        assert done.returncode == 0, f"{commands}\n{done.stderr}"
        return done.stdout
