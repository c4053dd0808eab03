"""A running service whose volumes lie on a simulated array, seen by its HTTP API and by the array's bytes."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import waitress

from stillframe import main
from stillframe.drivers.platform import Drivers
from stillframe.settings import load
from tests.lab.storage_virtualize.objects import GRAIN
from tests.lab.storage_virtualize.server import PASSWORD, USER, SimulatedArray

PATIENCE = 180.0
SIZE = 8 * GRAIN
PROJECT = "demo"


@dataclass
class Service:
    """What a client of the API does, and what a host does to the volumes."""

    url: str
    served: SimulatedArray
    instance_id: str
    volumes: dict[str, str]
    session: requests.Session = field(default_factory=requests.Session)

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        uri = path if path.startswith("http") else self.url + path
        return self.session.request(method, uri, timeout=PATIENCE, **options)

    def act(self, body: object) -> dict[str, Any]:
        reply = self.call("POST", f"/compute/v2.1/{PROJECT}/servers/{self.instance_id}/action", json=body)
        assert reply.status_code in (200, 202), reply.text
        told: dict[str, Any] = reply.json()
        return told

    def snapshot(self, name: str) -> str:
        made = self.act({"vm-snapshot": {"name": name, "description": ""}})["instance_snapshot"]
        self.wait(made["task_uri"])
        assert self.show(made["id"])["status"] == "available", self.show(made["id"])
        return str(made["id"])

    def restore(self, snapshot_id: str, **way: bool) -> dict[str, Any]:
        """Restore, retry or roll back; the snapshot as it is then."""
        self.wait(self.begin_restore(snapshot_id, **way))
        return self.show(snapshot_id)

    def begin_restore(self, snapshot_id: str, **way: bool) -> str:
        return str(self.act({"vm-restore": {"instance_snapshot_id": snapshot_id, **way}})["task_uri"])

    def delete(self, snapshot_id: str) -> None:
        reply = self.call("DELETE", f"/volume/v3/{PROJECT}/instance-snapshots/{snapshot_id}")
        assert reply.status_code == 200, reply.text
        self.wait(reply.json()["task_uri"])

    def show(self, snapshot_id: str) -> dict[str, Any]:
        reply = self.call("GET", f"/volume/v3/{PROJECT}/instance-snapshots/{snapshot_id}")
        assert reply.status_code == 200, reply.text
        shown: dict[str, Any] = reply.json()["instance_snapshot"]
        return shown

    def progress(self, task_uri: str) -> dict[str, Any]:
        details: dict[str, Any] = self.call("GET", task_uri).json()["details"]
        return details

    def wait(self, task_uri: str) -> None:
        until = time.monotonic() + PATIENCE
        while True:
            details = self.progress(task_uri)
            states = details["flow_details"].values()
            if details["progress"] == 100 or {"FAILURE", "REVERTED"} & set(states):
                return
            assert time.monotonic() < until, details
            time.sleep(0.02)

    def check(self, volume: str, *, details: bool = False, **options: Any) -> requests.Response:
        path = f"/volume/v3/{PROJECT}/volumes/{self.volumes[volume]}/action"
        return self.call("POST", path, json={"copy-progress": {"details": details}}, **options)

    def write(self, letter: str, grain: int = 0) -> None:
        """Let a host write to the same place of all volumes."""
        for vdisk in self.volumes:
            self.served.write(vdisk, grain * GRAIN, f"{vdisk[-1]}{letter}".encode() * (GRAIN // 2))

    def fill(self, letter: str) -> None:
        """Let a host write all over all volumes."""
        for grain in range(SIZE // GRAIN):
            self.write(letter, grain)

    def read(self) -> list[bytes]:
        return [self.served.read(vdisk) for vdisk in self.volumes]


def configured(folder: Path, served: SimulatedArray, **options: object) -> Path:
    """A settings file for the array; what is not of [storage_virtualize] is named GROUP__OPTION."""
    groups: dict[str, dict[str, object]] = {
        "DEFAULT": {"state_dir": folder / "state", "auth_strategy": "noauth"},
        "database": {"sqlite_synchronous": "NORMAL"},
        "drivers": {"storage": "storage_virtualize", "first_wait": 0.05, "longest_wait": 0.5},
        "storage_virtualize": {"arrays": "a", "poll_seconds": 0.02},
        "array:a": {
            "endpoint": served.endpoint,
            "username": USER,
            "ca_file": served.ca_file,
            "commands_a_second": 1000,
        },
    }
    (folder / "password").write_text(PASSWORD)
    groups["array:a"]["password_file"] = folder / "password"
    for key, value in options.items():
        group, _, option = key.rpartition("__")
        groups.setdefault(group or "storage_virtualize", {})[option] = value
    path = folder / "stillframe.conf"
    path.write_text(
        "\n".join(
            f"[{group}]\n" + "\n".join(f"{option} = {value}" for option, value in given.items())
            for group, given in groups.items()
        )
    )
    return path


def declare(folder: Path, served: SimulatedArray, *vdisks: str) -> str:
    """An instance with these vdisks, which are made; its id."""
    instance_id = str(uuid.uuid4())
    instances = folder / "state" / "instances"
    instances.mkdir(parents=True)
    lines = [f'id = "{instance_id}"', 'name = "vm"', f'project_id = "{PROJECT}"', f'qmp_socket = "{folder}/qmp"']
    for vdisk in vdisks:
        served.array.add_vdisk(vdisk, SIZE)
        lines += ["[[vdisks]]", f'name = "{vdisk}"', f'vdisk = "{vdisk}"', 'array = "a"']
    (instances / "vm.toml").write_text("\n".join(lines))
    return instance_id


@contextmanager
def running(
    config: Path,
    served: SimulatedArray,
    instance_id: str | None = None,
    drivers: Drivers | None = None,
    names: dict[str, str] | None = None,
) -> Iterator[Service]:
    """Serve until the context is left; `names` are the vdisks by volume id, where they are not as declared."""
    service = main.build(load([str(config)]), drivers=drivers)
    server = waitress.create_server(
        service.wsgi, host="127.0.0.1", port=0, threads=4, clear_untrusted_proxy_headers=False
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    service.start()
    instance = next(one for one in service.drivers.compute.list_instances(PROJECT) if instance_id in (None, one.id))
    volumes = names or {one.device: one.volume_id for one in instance.attachments}
    running = Service(f"http://127.0.0.1:{server.effective_port}", served, instance.id, volumes)
    try:
        yield running
    finally:
        # Connections that are kept alive would keep the server's loop alive, too.
        running.session.close()
        server.close()
        # They do not end with the server, and stay in the process of the tests.
        server.task_dispatcher.shutdown()
        service.stop()
        thread.join(1)
