"""Processes that are restarted, hung up on, and begun beside others: no request is lost, and no work done twice."""

from __future__ import annotations

import csv
import io
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import requests

from tests.cli.program import PROGRAM, Place, started
from tests.deploy.serving import DEPLOY, free_port, serving
from tests.deploy.test_servers import HAPROXY, certificate, configured, needs_haproxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["certificate"]

_PATIENCE: Final = 180.0
_LIST: Final = "/volume/v3/default/instance-snapshots"
_ACTION: Final = "/compute/v2.1/default/servers/nowhere/action"


def wait_for(reached: Callable[[], object], what: str) -> None:
    until = time.monotonic() + _PATIENCE
    while not reached():
        assert time.monotonic() < until, what
        time.sleep(0.1)


class Client:
    """Asks without a pause, looking and changing in turns, and counts what it is answered."""

    def __init__(self, address: str, authority: Path) -> None:
        self.answers: Counter[str] = Counter()
        self._address = address
        self._authority = authority
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextmanager
    def asking(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._ending.set()
            self._thread.join(_PATIENCE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        session = requests.Session()
        session.trust_env = False
        session.verify = str(self._authority)
        session.auth = ("alice", "right")
        while not self._ending.is_set():
            try:
                looked = session.get(self._address + _LIST, timeout=60).status_code
                changed = session.post(self._address + _ACTION, json={"vm-snapshot": {"name": "x"}}, timeout=60)
                self.answers.update([str(looked), str(changed.status_code)])
            except requests.RequestException as error:
                self.answers[type(error).__name__] += 1
            # Leave the processors to those that are asked.
            time.sleep(0.1)


class Balancer:
    """HAProxy, as its admin socket shows it."""

    def __init__(self, admin: Path) -> None:
        self._admin = admin

    def said(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self._admin))
            connection.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def status(self, server: str) -> str:
        rows = csv.DictReader(io.StringIO(self.said("show stat").removeprefix("# ")))
        return next(row["status"] for row in rows if (row["pxname"], row["svname"]) == ("stillframe", server))

    def sessions(self, server: str) -> int:
        rows = csv.DictReader(io.StringIO(self.said("show stat").removeprefix("# ")))
        return next(int(row["scur"]) for row in rows if (row["pxname"], row["svname"]) == ("stillframe", server))


@needs_haproxy
def test_a_rolling_restart_loses_no_request(place: Place, certificate: Path) -> None:
    ports = [free_port() for _ in range(3)]
    path = configured(place.folder, certificate, *ports)
    address, first, second = (
        f"{scheme}://127.0.0.1:{port}" for scheme, port in zip(("https", *["http"] * 2), ports, strict=True)
    )
    environment = {**place.environment(), "OS_DEFAULT__BIND_PORT": str(ports[1])}
    gunicorn = [
        *(str(Path(sys.executable).with_name("gunicorn")), "--config", str(DEPLOY / "gunicorn.conf.py")),
        *(
            "--bind",
            f"127.0.0.1:{ports[2]}",
            "--pid",
            str(place.folder / "gunicorn.pid"),
            "stillframe.wsgi:application()",
        ),
    ]
    balancer, client = Balancer(place.folder / "admin.sock"), Client(address, certificate.with_name("authority.pem"))

    def api() -> ExitStack:
        stack = ExitStack()
        stack.enter_context(serving([*PROGRAM, "api"], f"{first}/readiness", place.folder / "api1.log", environment))
        return stack

    def behind_gunicorn() -> ExitStack:
        stack = ExitStack()
        log = place.folder / "gunicorn.log"
        stack.enter_context(serving(gunicorn, f"{second}/readiness", log, place.environment()))
        return stack

    def back(server: str) -> None:
        wait_for(lambda: balancer.status(server) == "UP", f"{server} is up")

    with ExitStack() as stack:
        one, two = api(), behind_gunicorn()
        stack.callback(lambda: one.close())  # noqa: PLW0108  # whichever it is by then
        stack.callback(lambda: two.close())  # noqa: PLW0108  # as above
        stack.enter_context(
            serving([str(HAPROXY), "-db", "-f", str(path)], f"{address}{_LIST}", place.folder / "haproxy.log", {})
        )
        for server in ("api1", "api2"):
            back(server)
        with client.asking():
            wait_for(lambda: client.answers.total() > 20, "requests are answered")
            # As systemctl restart does.
            one.close()
            one = api()
            back("api1")
            # As systemctl reload does.
            master = int((place.folder / "gunicorn.pid").read_text())
            before = workers(master)
            subprocess.run(["kill", "-HUP", str(master)], check=True)
            wait_for(lambda: (now := workers(master)) and not now & before, "gunicorn's processes are new ones")
            # As the page says before gunicorn itself is stopped.
            balancer.said("set server stillframe/api2 state drain")
            wait_for(lambda: balancer.sessions("api2") == 0, "api2 is drained")
            two.close()
            two = behind_gunicorn()
            balancer.said("set server stillframe/api2 state ready")
            back("api2")
            answered = client.answers.total()
            wait_for(lambda: client.answers.total() > answered + 20, "requests are answered")
    assert set(client.answers) == {"200", "404"}, client.answers


def workers(master: int) -> set[int]:
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return {int(child) for child in children}


def test_a_hangup_ends_nothing_and_serve_beside_a_worker_is_refused(place: Place) -> None:
    log = place.folder / "worker" / "log"
    log.parent.mkdir()
    place.config.write_text(place.config.read_text().replace("[DEFAULT]", f"[DEFAULT]\nlog_file = {log}", 1))
    with started(place, "worker") as worker:
        log.rename(log.with_name("log.1"))
        worker.process.send_signal(signal.SIGHUP)
        alone = Place(place.folder)
        settings = place.config.read_text()
        place.config.write_text(settings.split("[database]")[0])
        refused = alone.run("serve")
        place.config.write_text(settings)
        assert refused.code == 4, refused
        assert (
            f"another stillframe works on {place.folder / 'state'} already (process {worker.process.pid})"
            in refused.err
        )
        assert worker.process.poll() is None
        assert worker.end() == 0
    assert log.exists()
    assert "ending" in log.read_text()


def test_what_clients_send_begins_no_line_of_gunicorns_log(place: Place) -> None:
    port, log = free_port(), place.folder / "gunicorn.log"
    command = [
        *(str(Path(sys.executable).with_name("gunicorn")), "--config", str(DEPLOY / "gunicorn.conf.py")),
        *("--bind", f"127.0.0.1:{port}", "--workers", "1", "stillframe.wsgi:application()"),
    ]
    with serving(command, f"http://127.0.0.1:{port}/healthcheck", log, place.environment()):
        for head in (
            b"GET /\x1b[2J HTTP/1.1\x1b\r\n\r\n",
            b"GET / HTTP/1.1\r\nX\x1b]0;y\x07: 1\r\n\r\n",
            b"\x1b[2J\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                connection.sendall(head)
                connection.recv(4096)
    assert "\x1b" not in log.read_text()
