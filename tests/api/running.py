"""A service on a loopback port, with a world in memory that can be made to fail and to wait.

With `STILLFRAME_APART=1` in the environment the service is one that has been scaled out: an API that works on nothing,
and two workers, which have nothing in common but a PostgreSQL, a job board on Redis, and the world.
"""

from __future__ import annotations

import atexit
import functools
import os
import tempfile
import threading
import time
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import requests
import sqlalchemy as sa

from stillframe import main, settings
from stillframe.api.http_server import HttpServer
from stillframe.domain.errors import NotSupported
from stillframe.drivers.flashcopy import FlashCopy
from stillframe.drivers.memory import MemoryDriver
from stillframe.drivers.platform import Drivers
from tests.harness import migrated
from tests.harness.faults import Faults
from tests.harness.surround import surround

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stillframe.api.connections import Bounds
    from stillframe.domain.instance import Instance
    from stillframe.settings import Settings
    from tests.databases import Server
    from tests.lab.boards import BoardServer

SIZE = 64 << 10
PATIENCE = 60.0

#: Whether the API and the workers run apart.
APART: Final = os.environ.get("STILLFRAME_APART", "") == "1"

Override = tuple[str | None, str, object]


class Mappings(FlashCopy):
    """The FlashCopy mappings of an array that holds some of the volumes."""

    def __init__(self) -> None:
        self.of_volume: dict[str, list[dict[str, str | None]]] = {}

    def mappings(self, volume_id: str, *, details: bool) -> Sequence[Mapping[str, str | None]]:
        if volume_id not in self.of_volume:
            raise NotSupported(f"Volume {volume_id} is not on this array.")
        return [
            {**mapping, "copyrate": mapping["copyrate"] if details else None} for mapping in self.of_volume[volume_id]
        ]


@dataclass
class Running:
    """A running service, and the world behind it."""

    url: str
    service: main.Service
    world: MemoryDriver
    faults: Faults
    flashcopy: Mappings | None
    session: requests.Session = field(default_factory=requests.Session)

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """One request; `path` may be a whole URI, and is sent as it stands."""
        uri = path if path.startswith("http") else self.url + path
        return self.session.request(method, uri, timeout=PATIENCE, allow_redirects=False, **options)

    def instance(self, project_id: str | None = None, volumes: int = 2, **options: Any) -> Instance:
        """A new instance, in a project of its own unless one is named."""
        project_id = project_id or f"project-{uuid.uuid4().hex[:8]}"
        return self.world.add_instance(project_id, "vm", [SIZE] * volumes, **options)

    def act(self, instance: Instance, body: object, **options: Any) -> requests.Response:
        path = f"/compute/v2.1/{instance.project_id}/servers/{instance.id}/action"
        return self.call("POST", path, json=body, **options)

    def snapshot(self, instance: Instance, name: str = "before", **arguments: Any) -> str:
        """Take a snapshot, wait for its end, and return its id."""
        reply = self.act(instance, {"vm-snapshot": {"name": name, **arguments}})
        assert reply.status_code == 200, reply.text
        created = reply.json()["instance_snapshot"]
        self.wait(created["task_uri"])
        return str(created["id"])

    def restore(self, instance: Instance, snapshot_id: str, **arguments: Any) -> dict[str, Any]:
        """Restore, retry or roll back, wait for the end, and return the last details of its progress."""
        reply = self.act(instance, {"vm-restore": {"instance_snapshot_id": snapshot_id, **arguments}})
        assert reply.status_code == 202, reply.text
        return self.wait(reply.json()["task_uri"])

    def show(self, instance: Instance, snapshot_id: str) -> dict[str, Any]:
        reply = self.call("GET", f"/volume/v3/{instance.project_id}/instance-snapshots/{snapshot_id}")
        assert reply.status_code == 200, reply.text
        shown: dict[str, Any] = reply.json()["instance_snapshot"]
        return shown

    def wait(self, task_uri: str, **options: Any) -> dict[str, Any]:
        """Watch a task to its end; its progress never falls."""
        until, before = time.monotonic() + PATIENCE, 0
        while time.monotonic() < until:
            ended = self.idle()
            reply = self.call("GET", task_uri, **options)
            assert reply.status_code == 200, reply.text
            details: dict[str, Any] = reply.json()["details"]
            assert details["progress"] >= before
            before = details["progress"]
            if ended:
                return details
            time.sleep(0.02)
        raise AssertionError(f"the task did not end: {details}")

    def idle(self) -> bool:
        """Whether no operation is open, no instance is held by one, and the books of all are closed."""
        open_ones = "SELECT count(*) FROM operations WHERE state IN ('pending', 'running')"
        held = "SELECT count(*) FROM instance_locks"
        books = "SELECT count(*) FROM logbooks"
        with self.service.database.reader.connect() as connection:
            return not any(connection.execute(sa.text(query)).scalar_one() for query in (open_ones, held, books))

    def everything(self) -> dict[str, Any]:
        """All that a refused request must leave alone: every row of every table, and the world."""
        with self.service.database.reader.connect() as connection:
            # Without the signs of life of processes and of the state folders that are witnesses.
            names = set(sa.inspect(connection).get_table_names()) - {"workers", "marks"}
            tables = {
                # In some order: a server may tell rows in another one after each change.
                name: sorted(map(repr, connection.execute(sa.select(sa.text("*")).select_from(sa.table(name)))))
                for name in names
            }
        with self.world.lock:
            world = {
                "instances": dict(self.world.instances),
                "volumes": dict(self.world.volumes),
                "contents": {key: bytes(value) for key, value in self.world.contents.items()},
                "copies": dict(self.world.copies),
                "fences": dict(self.world.fences),
            }
        return {"tables": tables, "world": world}


@contextmanager
def running(
    folder: Path,
    *overrides: Override,
    config_files: Sequence[str] = (),
    flashcopy: Mappings | None = None,
    bounds: Bounds | None = None,
) -> Iterator[Running]:
    """Serve until the context is left; `bounds` is for what one client may take of the server."""
    defaults: list[Override] = [
        (None, "state_dir", str(folder)),
        # Each story has a project of its own, which in this mode the path names.
        (None, "auth_strategy", "noauth"),
        ("database", "sqlite_synchronous", "NORMAL"),
        ("drivers", "compute", "memory"),
        ("drivers", "storage", "memory"),
        ("drivers", "first_wait", 0.01),
        ("drivers", "attempts", 2),
    ]
    chosen = settings.load(config_files, [*defaults, *(_shared() if APART else ()), *overrides])
    world, faults = MemoryDriver(), Faults()
    abilities = () if flashcopy is None else (flashcopy,)
    drivers = Drivers(surround(world.compute, faults.around), surround(world.storage, faults.around), abilities)
    service, workers = _apart(chosen, drivers) if APART else _together(chosen, drivers)
    server, ending = HttpServer(service.wsgi, "127.0.0.1", 0, 8, chosen.api.max_body_size, bounds), threading.Event()
    thread = threading.Thread(target=server.run, args=(ending,), daemon=True)
    thread.start()
    for worker in workers:
        worker.start()
    api = Running(server.address, service, world, faults, flashcopy)
    try:
        yield api
    finally:
        api.session.close()
        ending.set()
        for one in {id(one): one for one in (*workers, service)}.values():
            one.stop()
        thread.join(1)


def _together(chosen: Settings, drivers: Drivers) -> tuple[main.Service, list[main.Service]]:
    migrated.lay_out(chosen.database.url)
    service = main.build(chosen, drivers=drivers)
    return service, [service]


def _apart(chosen: Settings, drivers: Drivers) -> tuple[main.Service, list[main.Service]]:
    """An API and its workers, as `stillframe api` and `stillframe worker` put them together."""
    database = main.open_database(chosen)
    main.upgrade_database(database)
    database.close()
    workers = [main.build(chosen, drivers=drivers, serve=False) for _ in range(2)]
    return main.build(chosen, drivers=drivers), workers


def _shared() -> list[Override]:
    """A database and a part of a job board that nobody else uses."""
    database, board = _servers()
    url = database.create_database()
    return [
        ("database", "connection", url.render_as_string(hide_password=False)),
        ("database", "pool_size", 5),
        ("job_board", "namespace", str(url.database)),
        *(("job_board", option, value) for option, value in board.settings.items()),
    ]


@functools.cache
def _servers() -> tuple[Server, BoardServer]:
    """Started once, for as long as the tests run."""
    from tests.databases import database_server  # noqa: PLC0415
    from tests.lab.boards import board_server  # noqa: PLC0415

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="board-")))
        started = stack.enter_context(database_server("postgresql")), stack.enter_context(board_server("redis", folder))
        atexit.register(stack.pop_all().close)
    return started
