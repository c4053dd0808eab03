"""Stillframe in front of the lab's cloud, as a process of its own, and its users."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import requests

from tests.cli.program import PROGRAM
from tests.lab.openstack.keystone import service_options, token_options
from tests.lab.openstack.lab import Lab
from tests.lab.openstack.services import Option, free_port, ini, until
from tests.lab.openstack.tenant import Tenant, checked

PATIENCE: Final = 180.0
ENDED: Final = ("available", "error", "restore-error", "rollback-error", "error-deleting")


class Stillframe:
    """The service; it can be killed and started again, and keeps its port.

    `user`: whom it logs in as; no other service that runs at the time may be the same.
    `cloud`: more options of `[openstack]`. `more`: more sections. `variables`: more of the environment.
    """

    def __init__(
        self,
        lab: Lab,
        folder: Path,
        *,
        user: str = "stillframe",
        cloud: Mapping[str, Option] | None = None,
        more: Mapping[str, Mapping[str, Option]] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self._environment = {**os.environ, **(variables or {})}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "stillframe.conf"
        self._process: subprocess.Popen[bytes] | None = None
        options: dict[str, dict[str, Option]] = {
            "DEFAULT": {"state_dir": str(folder / "state"), "bind_port": self.port, "auth_strategy": "keystone"},
            "keystone_authtoken": token_options(lab.keystone.auth_url, user),
            "openstack": {
                **service_options(lab.keystone.auth_url, user),
                "snapshot_timeout": 60,
                "revert_timeout": 20,
                "late_requests": 2,
                **(cloud or {}),
            },
            "drivers": {"compute": "nova", "storage": "cinder", "graceful_stop_seconds": 10},
        }
        for section, chosen in (more or {}).items():
            options.setdefault(section, {}).update(chosen)
        self.config.write_text(ini(options))

    def start(self) -> None:
        with (self.folder / "service.log").open("ab") as log:
            command = [*PROGRAM, "--config-file", str(self.config), "serve"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment)
        until(self._answers, 60)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    @property
    def process_id(self) -> int:
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        return (self.folder / "service.log").read_text()

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()[-4000:]
        try:
            return requests.get(f"{self.url}/healthcheck", timeout=5).ok
        except (requests.ConnectionError, requests.Timeout):
            return False


@contextmanager
def serving(lab: Lab, folder: Path, **more: Any) -> Iterator[Stillframe]:
    """The service, until the block ends; `more` goes to `Stillframe`."""
    service = Stillframe(lab, folder, **more)
    service.start()
    try:
        yield service
    finally:
        service.stop()


class User:
    """A user of the cloud who talks to the service, at its own endpoints or at those of Nova and Cinder."""

    def __init__(self, lab: Lab, name: str, compute: str, volume: str) -> None:
        self.lab = lab
        self.name = name
        self.project_id = lab.projects[name.rpartition("-")[0]]
        self._compute = compute
        self._volume = volume

    def ask(self, method: str, url: str, body: object = None) -> requests.Response:
        headers = {"X-Auth-Token": self.lab.token(self.name)}
        return requests.request(method, url, json=body, headers=headers, timeout=PATIENCE)

    def act(self, server_id: str, body: object) -> requests.Response:
        return self.ask("POST", f"{self._compute}/servers/{server_id}/action", body)

    def snapshots(self, method: str = "GET", path: str = "", body: object = None) -> requests.Response:
        return self.ask(method, f"{self._volume}/instance-snapshots{path}", body)

    def show(self, snapshot_id: str) -> dict[str, Any]:
        shown: dict[str, Any] = checked(self.snapshots(path=f"/{snapshot_id}"), 200)["instance_snapshot"]
        return shown

    def create(self, server_id: str, **arguments: Any) -> dict[str, Any]:
        """A new snapshot, when it has come to its end."""
        made = checked(self.act(server_id, {"vm-snapshot": {"name": "story", **arguments}}), 200)
        return self.settled(made["instance_snapshot"]["id"])

    def restore(self, server_id: str, snapshot_id: str, **arguments: Any) -> dict[str, Any]:
        """The snapshot after a restore, retry or rollback has come to its end."""
        accepted = checked(
            self.act(server_id, {"vm-restore": {"instance_snapshot_id": snapshot_id, "force": True, **arguments}}), 202
        )
        shown = self.settled(snapshot_id)
        progress = self.progress(accepted["task_uri"])
        assert (progress["progress"] == 100) == (shown["status"] == "available"), progress
        return shown

    def progress(self, task_uri: str) -> dict[str, Any]:
        details: dict[str, Any] = checked(self.ask("GET", task_uri), 200)["details"]
        return details

    def delete(self, snapshot_id: str) -> None:
        checked(self.snapshots("DELETE", f"/{snapshot_id}"), 200)

        def gone() -> bool:
            reply = self.snapshots(path=f"/{snapshot_id}")
            assert "error" not in reply.json().get("instance_snapshot", {}).get("status", ""), reply.text
            return reply.status_code == 404

        until(gone, PATIENCE)

    def settled(self, snapshot_id: str) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while (shown := self.show(snapshot_id))["status"] not in ENDED:
            assert time.monotonic() < end, shown
            time.sleep(0.2)
        return shown


def own_user(lab: Lab, service: Stillframe, name: str) -> User:
    """A user who uses the service's own endpoints."""
    project_id = lab.projects[name.rpartition("-")[0]]
    return User(lab, name, f"{service.url}/compute/v2.1/{project_id}", f"{service.url}/volume/v3/{project_id}")


def holdings(lab: Lab, tenant: Tenant) -> Mapping[str, Any]:
    """What Cinder keeps, in all projects, and what counts against the tenant's quota."""
    api = lab.api("admin", "volumev3")
    kinds = ("volumes", "snapshots", "group_snapshots", "attachments")
    found: dict[str, Any] = {
        kind: sorted(one["id"] for one in checked(api.get(f"/{kind}?all_tenants=1"))[kind]) for kind in kinds
    }
    usage = checked(tenant.volume.get("/limits"))["limits"]["absolute"]
    return found | {key: value for key, value in usage.items() if key.startswith("total")}


def cloud_user(lab: Lab, name: str) -> User:
    """A user who uses the endpoints of Nova and Cinder, where filters hand over what is not theirs."""
    project_id = lab.projects[name.rpartition("-")[0]]
    return User(lab, name, f"{lab.nova.api.url}/v2.1", f"{lab.cinder.api.url}/v3/{project_id}")
