"""A service in this process over a world in memory, whose calls can fail or wait, and whose clock can jump."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

import sqlalchemy as sa

from stillframe import main
from stillframe.domain.errors import StillframeError
from stillframe.drivers.memory import MemoryDriver
from stillframe.drivers.platform import Drivers
from stillframe.settings import load
from stillframe.settings.limits import OperationLimits
from stillframe.store.tables import FENCES, INSTANCE_LOCKS, OPERATIONS
from tests.harness import migrated
from tests.harness.client import client_of
from tests.harness.faults import Clock, Faults, wait_until
from tests.harness.surround import surround

if TYPE_CHECKING:
    from pathlib import Path

    from stillframe.domain.instance import Instance

SIZE: Final = 1 << 10
PROJECT: Final = "demo"


class World:
    """A running service, the world behind it, and one instance with two volumes that is off."""

    def __init__(
        self,
        folder: Path,
        database_url: sa.URL | None = None,
        limits: OperationLimits | None = None,
        **engine: Any,
    ) -> None:
        self.driver, self.faults, self.clock = MemoryDriver(), Faults(), Clock()
        self._folder, self._engine = folder, engine
        self._database_url = database_url
        self._limits = limits or OperationLimits()
        self.instance = self.driver.add_instance(PROJECT, "vm", [SIZE, SIZE])
        self.first, self.second = self.instance.volume_ids
        self.service = self._build()
        self.service.start()

    def another_worker(self) -> World:
        """One more service on the same database and the same world, with faults of its own."""
        other = copy.copy(self)
        other.faults = Faults()
        other.start_anew()
        return other

    def _build(self) -> main.Service:
        overrides: list[tuple[str | None, str, object]] = [
            (None, "state_dir", str(self._folder)),
            (None, "auth_strategy", "noauth"),
            ("database", "sqlite_synchronous", "NORMAL"),
            ("drivers", "first_wait", 0.01),
            ("drivers", "longest_wait", 0.02),
            ("drivers", "attempts", 3),
        ]
        if self._database_url is not None:
            url = self._database_url.render_as_string(hide_password=False)
            overrides.append(("database", "connection", url))
        settings = replace(load(overrides=overrides), limits=self._limits)
        settings = replace(settings, engine=replace(settings.engine, **self._engine))
        migrated.lay_out(settings.database.url)
        compute = surround(self.driver.compute, self.faults.around)
        storage = surround(self.driver.storage, self.faults.around)
        return main.build(settings, drivers=Drivers(compute, storage), now=self.clock)

    def stop(self, seconds: float = 10.0) -> bool:
        return self.service.stop(seconds)

    def start_anew(self) -> None:
        """Another service on the same database and the same world."""
        self.service = self._build()
        self.service.start()

    # Requests.

    def ask(self, method: str, path: str, body: object = None) -> Any:
        return client_of(self.service.wsgi).simulate_request(method, path, json=body, remote_addr="127.0.0.1")

    def act(self, body: object, instance: Instance | None = None) -> Any:
        return self.ask("POST", f"/compute/v2.1/{PROJECT}/servers/{(instance or self.instance).id}/action", body)

    def begin_create(self, instance: Instance | None = None, *volumes: str, **more: Any) -> tuple[str, str]:
        """Have a snapshot taken; its id, and where its progress is found."""
        reply = self.act({"vm-snapshot": {"name": "kept", "volumes": [*volumes], **more}}, instance)
        assert reply.status_code == 200, reply.text
        made = reply.json["instance_snapshot"]
        return made["id"], made["task_uri"]

    def begin(self, way: str, snapshot_id: str, *, force: bool = False) -> str:
        """Restore, retry or roll back; where its progress is found."""
        ways = {} if way == "restore" else {way: True}
        reply = self.act({"vm-restore": {"instance_snapshot_id": snapshot_id, "force": force, **ways}})
        assert reply.status_code == 202, reply.text
        return str(reply.json["task_uri"])

    def begin_delete(self, snapshot_id: str) -> str:
        reply = self.ask("DELETE", _path(snapshot_id))
        assert reply.status_code == 200, reply.text
        return str(reply.json["task_uri"])

    def create(self, *volumes: str) -> str:
        snapshot_id, _task = self.begin_create(None, *volumes)
        self.settle()
        return snapshot_id

    def restore(self, snapshot_id: str, *, force: bool = False) -> dict[str, Any]:
        return self._to_the_end("restore", snapshot_id, force=force)

    def retry(self, snapshot_id: str, *, force: bool = False) -> dict[str, Any]:
        return self._to_the_end("retry", snapshot_id, force=force)

    def rollback(self, snapshot_id: str, *, force: bool = False) -> dict[str, Any]:
        return self._to_the_end("rollback", snapshot_id, force=force)

    def _to_the_end(self, way: str, snapshot_id: str, *, force: bool) -> dict[str, Any]:
        self.begin(way, snapshot_id, force=force)
        self.settle()
        return self.show(snapshot_id)

    def delete(self, snapshot_id: str) -> None:
        self.begin_delete(snapshot_id)
        self.settle()

    def show(self, snapshot_id: str) -> dict[str, Any]:
        reply = self.ask("GET", _path(snapshot_id))
        assert reply.status_code == 200, reply.text
        shown: dict[str, Any] = reply.json["instance_snapshot"]
        return shown

    def is_gone(self, snapshot_id: str) -> bool:
        return bool(self.ask("GET", _path(snapshot_id)).status_code == 404)

    def progress(self, task_uri: str) -> dict[str, Any]:
        parts = urlsplit(task_uri)
        query = "&".join(f"{key}={value}" for key, value in parse_qsl(parts.query))
        reply = self.ask("GET", f"{parts.path}?{query}")
        assert reply.status_code == 200, reply.text
        details: dict[str, Any] = reply.json["details"]
        return details

    # What is behind.

    def restore_error(self, *broken: str) -> str:
        """A snapshot whose restore has just failed for some volumes, which is mended then."""
        snapshot_id = self.create()
        self.write(b"later")
        for volume in broken or (self.second,):
            self.faults.fail("restore", StillframeError("broken"), volume)
        assert self.restore(snapshot_id)["status"] == "restore-error"
        self.faults.mend()
        return snapshot_id

    def write(self, data: bytes) -> None:
        """Let the guest write the same to the beginning of both volumes."""
        for volume in (self.first, self.second):
            self.driver.write(volume, 0, data.ljust(8, b"\0"))

    def read(self) -> list[bytes]:
        """The first bytes of both volumes."""
        return [self.driver.read(volume, 0, 8).rstrip(b"\0") for volume in (self.first, self.second)]

    def copies(self, kind: str | None = None) -> list[str]:
        """The volumes that copies are of, those of snapshots or the safety copies."""
        found = self.driver.storage.find(None)
        return sorted(copy.name.volume_id for copy in found if kind in (None, copy.name.kind.value))

    def operation(self, snapshot_id: str) -> Any:
        """The latest operation on a snapshot."""
        statement = sa.select(OPERATIONS).where(OPERATIONS.c.snapshot_id == snapshot_id)
        with self.service.database.reader.connect() as connection:
            return connection.execute(statement.order_by(OPERATIONS.c.created_at.desc())).mappings().first()

    def attempts(self, task_uri: str) -> int:
        """How often a task was taken up."""
        task_id = dict(parse_qsl(urlsplit(task_uri).query))["task_id"]
        return self.service.snapshots.operations.get(task_id).attempts

    def fences(self) -> tuple[str | None, str | None]:
        """Whose snapshot the instance is fenced for: by the store, and by the platform."""
        statement = sa.select(FENCES.c.snapshot_id).where(FENCES.c.instance_id == self.instance.id)
        with self.service.database.reader.connect() as connection:
            return connection.execute(statement).scalar(), self.driver.fences.get(self.instance.id)

    def busy(self) -> bool:
        with self.service.database.reader.connect() as connection:
            locks = connection.execute(sa.select(sa.func.count()).select_from(INSTANCE_LOCKS)).scalar_one()
        return bool(locks or self.service.snapshots.operations.unfinished())

    def settle(self) -> None:
        """Wait until no operation is open and no instance is reserved."""
        wait_until(lambda: not self.busy(), "the operation did not come to its end")

    @contextmanager
    def broken_store(
        self, statement: str, times: float = math.inf, error: Exception | None = None, *, after: str = ""
    ) -> Iterator[list[str]]:
        """Let statements of the database that begin so fail, from the one on that begins with `after`.

        Yields those that did. TaskFlow tries twice more, after five seconds each, where the database says that it does
        not answer; with another error nobody has to wait for that.
        """
        failed: list[str] = []
        armed = threading.Event()

        def fail(_connection: Any, _cursor: Any, text: str, *_rest: Any) -> None:
            if text.startswith(after):
                armed.set()
            if armed.is_set() and text.startswith(statement) and len(failed) < times:
                failed.append(text)
                raise error or sa.exc.OperationalError(text, None, OSError("the test broke the database"))

        engine = self.service.database.writer
        sa.event.listen(engine, "before_cursor_execute", fail)
        try:
            yield failed
        finally:
            sa.event.remove(engine, "before_cursor_execute", fail)


def _path(snapshot_id: str) -> str:
    return f"/volume/v3/{PROJECT}/instance-snapshots/{snapshot_id}"
