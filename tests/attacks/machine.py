"""The whole service over image files on this machine, in folders whose names no tenant is to see."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import requests
import sqlalchemy as sa

from stillframe import main
from stillframe.api.http_server import HttpServer
from stillframe.drivers.image_files.formats import Format
from stillframe.settings import load
from stillframe.store.tables import INSTANCE_LOCKS
from stillframe.testing.world import MIB
from tests.attacks.served import Things
from tests.conformance.worlds import LocalWorld
from tests.harness.faults import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stillframe.domain.instance import Instance

#: What every path of this host has in it; a blank ends a path in many a careless message.
SECRET: Final = "hidden hollow"


class Machine:
    """A service whose callers act in the project that their paths name; `said` is all that it ever answered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / SECRET
        self.local = LocalWorld(self.folder / "images", Format.RAW)
        settings = load(
            overrides=[
                (None, "state_dir", str(self.folder / "state")),
                (None, "auth_strategy", "noauth"),
                ("qemu", "instances_dir", str(self.local.instances)),
                ("database", "sqlite_synchronous", "NORMAL"),
                ("drivers", "first_wait", 0.01),
                ("drivers", "longest_wait", 0.02),
                ("drivers", "attempts", 2),
                ("drivers", "operation_attempts", 2),
            ]
        )
        self.said: list[str] = []
        self.service = main.build(settings)
        self.service.start()
        self._server = HttpServer(self.service.wsgi, "127.0.0.1", 0, 4, settings.api.max_body_size)
        self._ending = threading.Event()
        self._serving = threading.Thread(target=self._server.run, args=(self._ending,), daemon=True)
        self._serving.start()
        self._session = requests.Session()

    def close(self) -> None:
        self._session.close()
        self._ending.set()
        self._serving.join(10)
        self.service.stop()
        self.local.close()

    def ask(self, method: str, path: str, body: object = None) -> requests.Response:
        uri = path if path.startswith("http") else self._server.address + path
        reply = self._session.request(method, uri, json=body, timeout=60, allow_redirects=False)
        self.said.append(f"{reply.status_code} {reply.headers} {reply.text}")
        return reply

    def act(self, instance: Instance, body: object) -> requests.Response:
        return self.ask("POST", f"/v2.1/{instance.project_id}/servers/{instance.id}/action", body)

    def settled(self, instance: Instance, reply: requests.Response) -> dict[str, Any] | None:
        """Watch what an accepted request led to; the object at its end, None for what was refused or is gone."""
        if reply.status_code >= 400:
            return None
        document = reply.json()
        task_uri = document.get("instance_snapshot", document)["task_uri"]
        wait_until(lambda: not self.ask("GET", task_uri).json()["details"]["pending_tasks"], "the task came to no end")
        snapshot_id = parse_qs(urlsplit(task_uri).query)["id"][0]
        shown = self.ask("GET", f"/v3/{instance.project_id}/instance-snapshots/{snapshot_id}")
        wait_until(lambda: not self.busy(), "the instance was not given back")
        if shown.status_code == 404:
            return None
        settled: dict[str, Any] = shown.json()["instance_snapshot"]
        return settled

    def busy(self) -> bool:
        with self.service.database.reader.connect() as connection:
            locks = connection.execute(sa.select(sa.func.count()).select_from(INSTANCE_LOCKS)).scalar_one()
        return bool(locks or self.service.snapshots.operations.unfinished())

    def things(self, project_id: str) -> Things:
        """An instance with a snapshot."""
        instance = self.local.add((MIB, MIB), project_id)
        reply = self.act(instance, {"vm-snapshot": {"name": "private-name"}})
        made = self.settled(instance, reply)
        assert made is not None, reply.text
        assert made["status"] == "available", made
        task_id = parse_qs(urlsplit(made["task_uri"]).query)["task_id"][0]
        return Things(project_id, instance.id, made["id"], instance.attachments[0].volume_id, task_id)


@contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    one = Machine(folder)
    try:
        yield one
    finally:
        one.close()
