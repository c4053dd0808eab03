"""A small cloud's Stillframe, whole: databases, board, APIs, workers, balancer, watch, and the operator's shell."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import bcrypt
import requests

from tests.cli.program import Place
from tests.databases import database_server
from tests.deploy.serving import free_port
from tests.deploy.test_servers import HAPROXY, configured
from tests.deploy.units import Systemd, Unit, shipped
from tests.deploy.watch import Watch, wait, watching
from tests.docs.pages import blocks
from tests.lab.boards import board_server
from tests.lab.clocks import WrongClock
from tests.lab.filesystems import mounted

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How long a worker is silent until it counts as dead, and a deletion may take; the janitor goes round every second.
CLAIM_SECONDS: Final = 3
DELETE_SECONDS: Final = 30
_PAGE: Final = "docs/how-to/answer-an-alert.md"
_BUSY: Final = ("creating", "restoring", "rolling-back", "deleting")
_PRINTED: Final = ("8791", "8792", "8793", "8794")


@dataclass(frozen=True, slots=True)
class Stack:
    """All of it; `front` is the address that clients know, `slow` a file system that can be stopped."""

    place: Place
    systemd: Systemd
    watch: Watch
    clock: WrongClock
    front: str
    slow: Path
    ports: tuple[int, ...]
    session: requests.Session

    @property
    def api(self) -> str:
        """The name of the first API among Prometheus' targets."""
        return f"127.0.0.1:{self.ports[0]}"

    def worker(self, number: int) -> str:
        """The name of a worker among Prometheus' targets."""
        return f"127.0.0.1:{self.ports[2 + number]}"

    def unit(self, name: str) -> Unit:
        found = self.systemd.units[name]
        assert isinstance(found, Unit)
        return found

    def workers(self) -> list[Unit]:
        return [self.unit(f"stillframe-worker@{port}") for port in self.ports[2:5]]

    def ask(self, method: str, path: str, body: object = None, user: str = "alice") -> Any:
        """A client's request, through the front; a dictionary."""
        reply = self.session.request(method, self.front + path, json=body, auth=(user, "right"), timeout=120)
        assert reply.status_code < 300, (method, path, reply.text)
        return reply.json()

    def told_by(self, target: str) -> str:
        """The metrics of one of Prometheus' targets, as they are now."""
        reply = requests.get(f"http://{target}/metrics", timeout=60)
        assert reply.status_code == 200, reply.text
        return reply.text

    def create(self, instance_id: str, name: str) -> str:
        """Have a snapshot taken; its id."""
        body = {"vm-snapshot": {"name": name}}
        reply = self.ask("POST", f"/compute/v2.1/default/servers/{instance_id}/action", body)
        return str(reply["instance_snapshot"]["id"])

    def snapshot(self, snapshot_id: str) -> dict[str, Any]:
        shown: dict[str, Any] = self.ask("GET", f"/volume/v3/default/instance-snapshots/{snapshot_id}")
        return dict(shown["instance_snapshot"])

    def settled(self, snapshot_id: str) -> dict[str, Any]:
        """The snapshot once no operation is on it."""
        wait(lambda: self.snapshot(snapshot_id)["status"] not in _BUSY, f"{snapshot_id} is settled")
        return self.snapshot(snapshot_id)

    def play(self, alert: str, *, first: int = 0, last: int | None = None, **names: str) -> str:
        """Type what the alert's section of the runbook says, block by block; what was shown."""
        chosen = [block for block in blocks(_PAGE) if block.section == alert][first:last]
        assert chosen, alert
        printed = {
            **{f"worker@{word}": f"worker@{port}" for word, port in zip(_PRINTED, self.ports[2:], strict=True)},
            "/var/lib/stillframe": str(self.place.folder / "state"),
            "/etc/haproxy": str(self.place.folder),
            **names,
        }
        bin_folders = f"{self.place.folder / 'bin'}:{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        done = subprocess.run(
            ["bash", "-c", "".join(block.script(printed) for block in chosen)],
            env={**self.place.environment(), "PATH": bin_folders, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        for wrong in ("command not found", "Traceback", "not found.", "Unknown command"):
            assert wrong not in done.stdout, done.stdout
        return done.stdout


@contextmanager
def full_stack(folder: Path, certificate: Path) -> Iterator[Stack]:
    """Have everything run until the block is left; it begins when nothing is wrong."""
    place, ports = Place(folder), tuple(free_port() for _ in range(6))
    front, clock = free_port(), WrongClock(folder)
    systemd = Systemd(lambda: clock.set(0))
    (folder / "bin").mkdir()
    with ExitStack() as stack:
        slow = stack.enter_context(mounted(folder, "ext4", 64 << 20))
        stack.enter_context(_small(folder / "state"))
        database = stack.enter_context(database_server("postgresql"))
        board = stack.enter_context(board_server("redis", folder / "redis"))
        systemd.units.update(postgresql=database)
        systemd.units["redis-server"] = board
        _configure(place, ports[0], front, database.create_database().render_as_string(hide_password=False), board)
        place.good("db", "upgrade")
        configured(folder, certificate, front, *ports[:2])
        authority = certificate.with_name("authority.pem")
        place.variables.update(
            *({"OS_AUTH_TYPE": "http_basic", "OS_USERNAME": "root", "OS_PASSWORD": "right"},),
            STILLFRAME_ENDPOINT=f"https://127.0.0.1:{front}",
            OS_CACERT=str(authority),
        )
        *first, last = _units(systemd, place, ports, clock)
        stack.callback(last.stop)
        for unit in first:
            stack.callback(unit.stop)
            unit.start()
        stack.enter_context(systemd.typed_in(folder / "bin"))
        session = requests.Session()
        session.trust_env, session.verify = False, str(authority)
        watch = stack.enter_context(watching(folder, [*ports[:5]], front, authority))
        found = Stack(place, systemd, watch, clock, f"https://127.0.0.1:{front}", slow, ports, session)
        wait(lambda: watch.value("sum(up)") == len(ports), "all targets are up", lambda: str(watch.query("up")))
        watch.quiet()
        yield found


@contextmanager
def _small(folder: Path) -> Iterator[None]:
    """A file system in memory that is soon full."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _configure(place: Place, port: int, front: int, url: str, board: Any) -> None:
    users, rules = place.folder / "htpasswd", place.folder / "policy.yaml"
    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()
    users.write_text(f"alice:{hashed}\nroot:{hashed}\n")
    rules.write_text('"snapshot:update": "rule:admin"\n')
    place.configure(
        auth_strategy="http_basic",
        public_endpoint=f"https://127.0.0.1:{front}",
        http_basic__user_file=str(users),
        http_basic__grants="alice:default:member, root:default:admin",
        oslo_policy__policy_file=str(rules),
        oslo_middleware__enable_proxy_headers_parsing="true",
        database__connection=url,
        engine__workers="1",
        engine__claim_seconds=str(CLAIM_SECONDS),
        engine__delete_deadline=str(DELETE_SECONDS),
        engine__janitor_interval="1",
        **{f"job_board__{name}": value for name, value in board.settings.items()},
    )
    place.config.write_text(place.config.read_text().replace("bind_port = 0", f"bind_port = {port}", 1))


def _units(systemd: Systemd, place: Place, ports: tuple[int, ...], clock: WrongClock) -> list[Unit]:
    """All that run a command; the last one, a worker, is for when there are too few."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "STILLFRAME_"))}
    known = {**clean, "STILLFRAME_CONFIG": str(place.config)}
    bound = {**known, "GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{ports[1]}"}
    units = {
        "stillframe-api": shipped("stillframe-api", place.folder, known),
        "stillframe-gunicorn": shipped("stillframe-gunicorn", place.folder, bound),
        "haproxy": Unit(
            [str(HAPROXY), "-db", "-f", str(place.folder / "haproxy.cfg")], clean, place.folder / "haproxy.log"
        ),
    }
    for port in ports[2:]:
        # One of the machines has a clock that can be set wrong.
        more = clock.variables if port == ports[4] else {}
        name = f"stillframe-worker@{port}"
        units[name] = shipped(name, place.folder, {**known, **more})
    systemd.units.update(units)
    return list(units.values())


def moment() -> float:
    """Now, in seconds of the epoch, as Prometheus counts."""
    return time.time()
