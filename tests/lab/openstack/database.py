"""MariaDB with the schemas of all services, made once and then copied, for migrations take most of a minute."""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from tests.databases import MariaDB
from tests.lab.openstack.installation import cache_folder, locked
from tests.lab.openstack.services import HOST, MARK, Place

__all__ = ["Database"]

NAMES = ("keystone", "placement", "glance", "nova_api", "nova", "nova_cell0", "cinder")
PASSWORD = "secret-of-the-lab"


class Database:
    """The server of a lab, in the folder `mariadb`."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.folder = place.folder / "mariadb"
        self.folder.mkdir()
        self._server: MariaDB | None = None

    @property
    def server(self) -> MariaDB:
        if self._server is None:
            raise RuntimeError("the database has not been started")
        return self._server

    def url(self, name: str) -> str:
        return f"mysql+pymysql://lab:{PASSWORD}@{HOST}:{self.server.port}/{name}?charset=utf8"

    def start(self, migrate: Callable[[], None], *parts: Callable[[], None]) -> None:
        """Start it with the schemas in place; `migrate` makes them, and the copy is kept by the code of its `parts`."""
        code = inspect.getsource(MariaDB) + "".join(inspect.getsource(part) for part in (self._prepare, *parts))
        key = hashlib.sha256(f"{self.place.venv.name}{code}".encode()).hexdigest()[:12]
        cache = cache_folder()
        seed = cache / f"schemas-{key}"
        with locked(cache / "lock-schemas"):
            if seed.exists():
                _copy(seed, self.folder / "data")
                self._launch()
                return
            self._launch()
            self._prepare()
            migrate()
            self.server.stop()
            unfinished = seed.with_suffix(".part")
            shutil.rmtree(unfinished, ignore_errors=True)
            _copy(self.folder / "data", unfinished)
            unfinished.rename(seed)
            self.server.start()

    def stop(self) -> None:
        self.server.stop()

    def _launch(self) -> None:
        binary = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if binary is None:
            raise RuntimeError("MariaDB is not installed")
        self._server = MariaDB(self.folder, binary)
        self._server.command = ["env", f"{MARK}={self.place.folder}", *self._server.command]
        self._server.start()

    def _prepare(self) -> None:
        engine = sa.create_engine(self.server.url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE USER lab IDENTIFIED BY '{PASSWORD}'")
            for name in NAMES:
                connection.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb3")
                connection.exec_driver_sql(f"GRANT ALL ON {name}.* TO lab")


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", "--reflink=auto", "--sparse=always", str(source), str(target)], check=True)
