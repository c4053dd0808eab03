"""The real service as a process of its own, and a client that talks HTTP to it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import tomli_w

from benchmarks.filesystems import ON_DISK

PROJECT: Final = "bench"
_HEADERS: Final = {"X-Auth-Token": f"bench:{PROJECT}", "Content-Type": "application/json"}
# Asking takes the service's own time; as rarely as this it does not count, and a wait is known to half of it.
_POLL_SECONDS: Final = 0.01


class Client:
    """One connection that is kept open; for one thread at a time."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def close(self) -> None:
        self._connection.close()

    def request(self, method: str, path: str, body: Any = None, expected: int = 200) -> bytes:
        """The body of the reply; raises `AssertionError` for another status."""
        content = None if body is None else json.dumps(body).encode()
        self._connection.request(method, path, content, _HEADERS)
        reply = self._connection.getresponse()
        answer = reply.read()
        assert reply.status == expected, f"{method} {path}: {reply.status} {answer.decode()}"
        return answer

    def take(self, instance_id: str, volumes: Sequence[str] = ()) -> str:
        """Ask for a snapshot and return its id at once."""
        body = {"vm-snapshot": {"name": "bench", "description": "", "volumes": list(volumes)}}
        answer = json.loads(self.request("POST", _servers(instance_id), body))
        return str(answer["instance_snapshot"]["id"])

    def restore(self, instance_id: str, snapshot_id: str) -> None:
        """Ask for a restore and return at once."""
        self.request("POST", _servers(instance_id), {"vm-restore": {"instance_snapshot_id": snapshot_id}}, 202)

    def delete(self, snapshot_id: str) -> None:
        """Delete a snapshot and return when it is gone."""
        self.request("DELETE", f"{SNAPSHOTS}/{snapshot_id}")
        while any(one["id"] == snapshot_id for one in self.page(1000)):
            time.sleep(5 * _POLL_SECONDS)

    def wait(self, snapshot_id: str) -> dict[str, Any]:
        """The snapshot as soon as it is available; raises `AssertionError` if it comes to another end."""
        while True:
            shown: dict[str, Any] = json.loads(self.request("GET", f"{SNAPSHOTS}/{snapshot_id}"))["instance_snapshot"]
            if not shown["status"].endswith("ing"):
                assert shown["status"] == "available", shown
                return shown
            time.sleep(_POLL_SECONDS)

    def page(self, limit: int, marker: str | None = None) -> list[dict[str, Any]]:
        """One page of the list."""
        behind = "" if marker is None else f"&marker={marker}"
        answer = json.loads(self.request("GET", f"{SNAPSHOTS}?limit={limit}{behind}"))
        found: list[dict[str, Any]] = answer["instance_snapshots"]
        return found


SNAPSHOTS: Final = f"/volume/v3/{PROJECT}/instance-snapshots"


def _servers(instance_id: str) -> str:
    return f"/compute/v2.1/{PROJECT}/servers/{instance_id}/action"


@dataclass(frozen=True, slots=True)
class Running:
    """A service that answers."""

    state_dir: Path
    port: int
    process_id: int

    def client(self) -> Client:
        return Client(self.port)

    def declare(self, name: str, disks: Sequence[Path], **more: Any) -> str:
        """Make an instance known and return its id; `more` are further keys of its declaration."""
        instance_id = str(uuid.uuid4())
        declaration = {
            "id": instance_id,
            "name": name,
            "project_id": PROJECT,
            "disks": [{"name": path.stem, "path": str(path), "format": path.suffix[1:]} for path in disks],
            **more,
        }
        folder = self.state_dir / "instances"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.toml").write_text(tomli_w.dumps(declaration))
        return instance_id


@contextmanager
def serving() -> Iterator[Running]:
    """`stillframe serve` on a free loopback port.

    Its state is on a real disk, as what it writes has to survive a power loss.
    """
    with TemporaryDirectory(prefix="bench-", dir=ON_DISK) as name:
        folder = Path(name)
        conf = Path(name, "stillframe.conf")
        conf.write_text(f"[DEFAULT]\nstate_dir = {folder}\nbind_port = 0\nauth_strategy = noauth\n")
        command = (sys.executable, "-m", "stillframe.cli.main", "--config-file", str(conf), "serve")
        log = Path(name, "log")
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield Running(folder, _port(process, log), process.pid)
        except BaseException:
            sys.stderr.write(log.read_text()[-4000:])
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """The port that the service says it listens on."""
    while process.poll() is None:
        found = re.search(r"serves on http://[^ ]*:(\d+) ", log.read_text())
        if found:
            return int(found[1])
        time.sleep(0.05)
    raise RuntimeError(f"the service did not start: {log.read_text()}")


def processor_seconds(process_id: int) -> float:
    """The processor time that a process has used, which does not depend on what else the machine does."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tree(process_id: int) -> list[int]:
    """A process and all that it has started, directly or not."""
    found = [process_id]
    for parent in found:
        for thread in Path(f"/proc/{parent}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found
