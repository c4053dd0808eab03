"""A real Keystone on a loopback port: SQLite, Fernet keys, and the projects and users that a test asks for."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORD = "secret-of-the-test"
PATIENCE = 60.0

# Importing Keystone takes longer than anything that it is asked to do here, so that is done once and then forked.
SERVER = """
import os, socket, sys
from oslo_service.backend import BackendType, init_backend
init_backend(BackendType.THREADING)  # it would take eventlet by itself
import waitress
from keystone.cmd.manage import main
from keystone.server.wsgi import initialize_public_application

def manage(*arguments):
    child = os.fork()
    if child == 0:
        sys.argv = ["keystone-manage", "--config-file", os.environ["OS_KEYSTONE_CONFIG_FILES"], *arguments]
        main()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"keystone-manage {arguments[0]} failed")

listening = socket.create_server(("127.0.0.1", 0))
url = f"http://127.0.0.1:{listening.getsockname()[1]}/v3"
manage("db_sync")
urls = [f"--bootstrap-{interface}-url={url}" for interface in ("admin", "internal", "public")]
manage("bootstrap", "--bootstrap-password", os.environ["PASSWORD"], "--bootstrap-region-id", "one", *urls)
server = waitress.create_server(initialize_public_application(), sockets=[listening])
print(url, flush=True)
server.run()
"""
CONFIGURATION = """
[DEFAULT]
log_file = {folder}/keystone.log
[database]
connection = sqlite:///{folder}/keystone.sqlite
[token]
provider = fernet
[fernet_tokens]
key_repository = {folder}/fernet
[fernet_receipts]
key_repository = {folder}/receipts
[credential]
key_repository = {folder}/credential
[identity]
password_hash_rounds = 4
[cache]
enabled = false
"""


@dataclass
class Identity:
    """A running Keystone; `url` ends in its version."""

    url: str
    projects: dict[str, str] = field(default_factory=dict)
    _admin: str | None = None

    def token(self, user: str, project: str | None, password: str = PASSWORD) -> str:
        """A token of a user, scoped to a project by its name (None: unscoped)."""
        who = {"user": {"name": user, "domain": {"id": "default"}, "password": password}}
        auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": who}}
        if project is None:
            auth["scope"] = "unscoped"
        else:
            auth["scope"] = {"project": {"name": project, "domain": {"id": "default"}}}
        reply = requests.post(f"{self.url}/auth/tokens", json={"auth": auth}, timeout=PATIENCE)
        reply.raise_for_status()
        return reply.headers["X-Subject-Token"]

    def system_token(self, user: str) -> str:
        """A token of a user that is scoped to the whole system."""
        who = {"user": {"name": user, "domain": {"id": "default"}, "password": PASSWORD}}
        auth = {"identity": {"methods": ["password"], "password": who}, "scope": {"system": {"all": True}}}
        reply = requests.post(f"{self.url}/auth/tokens", json={"auth": auth}, timeout=PATIENCE)
        reply.raise_for_status()
        return reply.headers["X-Subject-Token"]

    def revoke(self, token: str) -> None:
        headers = {"X-Auth-Token": token, "X-Subject-Token": token}
        requests.delete(f"{self.url}/auth/tokens", headers=headers, timeout=PATIENCE).raise_for_status()

    def add(self, user: str, project: str, role: str) -> None:
        """A new user with a role in a project, which is made where it is missing."""
        if project not in self.projects:
            made = self._call("POST", "projects", {"project": {"name": project, "domain_id": "default"}})
            self.projects[project] = made["project"]["id"]
        made = self._call("POST", "users", {"user": {"name": user, "domain_id": "default", "password": PASSWORD}})
        (found,) = self._call("GET", f"roles?name={role}")["roles"]
        self._call("PUT", f"projects/{self.projects[project]}/users/{made['user']['id']}/roles/{found['id']}")

    def serve(self, kind: str, url: str) -> None:
        """A new service in the catalog, with one public endpoint."""
        made = self._call("POST", "services", {"service": {"type": kind, "name": kind}})
        endpoint = {"service_id": made["service"]["id"], "interface": "public", "url": url, "region_id": "one"}
        self._call("POST", "endpoints", {"endpoint": endpoint})

    def _call(self, method: str, path: str, body: object = None) -> Any:
        self._admin = self._admin or self.token("admin", "admin")
        headers = {"X-Auth-Token": self._admin}
        reply = requests.request(method, f"{self.url}/{path}", json=body, headers=headers, timeout=PATIENCE)
        reply.raise_for_status()
        return reply.json() if reply.content else None


@contextmanager
def keystone(folder: Path) -> Iterator[Identity]:
    """Set a Keystone up and serve it until the context is left."""
    file = folder / "keystone.conf"
    file.write_text(CONFIGURATION.format(folder=folder))
    for name in ("fernet", "receipts", "credential"):
        (folder / name).mkdir(mode=0o700)
        for number in range(2):
            (folder / name / str(number)).write_bytes(base64.urlsafe_b64encode(os.urandom(32)))
    environment = {**os.environ, "OS_KEYSTONE_CONFIG_FILES": str(file), "PASSWORD": PASSWORD}
    with (
        (folder / "server.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-c", SERVER], env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        ) as server,
    ):
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            assert url, (folder / "server.log").read_text()
            yield Identity(url)
        finally:
            server.terminate()
