"""Real job boards for tests: Redis, Redis behind sentinels, and etcd, on loopback and in folders of their own.

Each keeps what it was told on disk, as an operator's would, so that it can be killed and started again.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import pytest
import redis
import requests
from redis.sentinel import MasterNotFoundError, Sentinel

from stillframe.settings.job_board import JobBoardOptions

KINDS: Final = ("redis", "sentinel", "etcd")

_INSTALL: Final = "apt-get install --yes --no-install-recommends redis-server redis-sentinel etcd-server"
_PATIENCE: Final = 60.0
_SERVICE: Final = "jobs"


class BoardServer(Protocol):
    """A job board's server, or several."""

    settings: dict[str, str]

    def start(self) -> None:
        """Start it and wait until it answers."""
        ...

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End all of it."""
        ...

    def strike(self) -> None:
        """Kill what answers at present; what does by itself what it can then has the time it needs for that."""
        ...

    def mend(self) -> None:
        """Have everything there again."""
        ...


class Process:
    """A server's process that does not outlive the tests."""

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.which(command[0]) is None:
            pytest.fail(f"{command[0]} is not installed; {_INSTALL}")
        self.folder = folder
        self.command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._process is not None:
            return
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig=SIGKILL", "--", *self.command], cwd=self.folder, stdout=log, stderr=log
            )

    def send(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


class RedisServer:
    """One Redis that appends every change to a file."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.port = free_port()
        self.process = Process(
            folder,
            [
                *("redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder)),
                *("--appendonly", "yes", "--appendfsync", "everysec", "--save", "300 1"),
                *more,
            ],
        )
        self.settings = {"backend": "redis", "host": "127.0.0.1", "port": str(self.port)}

    def start(self) -> None:
        self.process.start()
        client = redis.Redis(port=self.port, socket_timeout=1)
        _until(client.ping, redis.RedisError)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.stop(how)

    def strike(self) -> None:
        self.stop(signal.SIGKILL)

    def mend(self) -> None:
        self.start()


class SentinelRedis:
    """Two Redis, one of them the other's replica, and three sentinels that agree by two."""

    def __init__(self, folder: Path) -> None:
        first = RedisServer(folder / "redis-0")
        second = RedisServer(folder / "redis-1", "--replicaof", f"127.0.0.1 {first.port}", "--repl-diskless-sync", "no")
        self._servers = {server.port: server for server in (first, second)}
        self._ports = [free_port() for _ in range(3)]
        self._sentinels = [self._sentinel(folder / f"sentinel-{port}", port, first.port) for port in self._ports]
        addresses = [f"127.0.0.1:{port}" for port in self._ports]
        self.settings = {
            "backend": "redis",
            "host": "127.0.0.1",
            "port": str(self._ports[0]),
            "sentinel": _SERVICE,
            "sentinel_fallbacks": ",".join(addresses[1:]),
        }

    def start(self) -> None:
        for server in self._servers.values():
            server.start()
        for sentinel in self._sentinels:
            sentinel.start()
        self._wait_until_whole()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        for sentinel in self._sentinels:
            sentinel.stop(how)
        for server in self._servers.values():
            server.stop(how)

    def strike(self) -> None:
        master = self.master()
        self._servers[master].stop(signal.SIGKILL)

        def failed_over() -> None:
            if self.master() == master:
                raise MasterNotFoundError

        _until(failed_over, MasterNotFoundError)

    def mend(self) -> None:
        self.start()

    def master(self) -> int:
        """The port of the Redis that the sentinels take for the master."""
        addresses = [("127.0.0.1", port) for port in self._ports]
        sentinels: Any = Sentinel(addresses, socket_timeout=1)  # type: ignore[no-untyped-call]
        return int(sentinels.discover_master(_SERVICE)[1])

    def _wait_until_whole(self) -> None:
        """Until the master has its replica and every sentinel knows of both and of the other sentinels."""

        def whole() -> None:
            for port in self._ports:
                told: Any = redis.Redis(port=port, socket_timeout=1).sentinel_master(_SERVICE)
                if (told["num-slaves"], told["num-other-sentinels"], told["is_odown"]) != (1, 2, False):
                    raise MasterNotFoundError
            replicas = redis.Redis(port=self.master(), socket_timeout=1).info("replication")
            if not any(one.get("state") == "online" for key, one in replicas.items() if key.startswith("slave0")):
                raise MasterNotFoundError

        _until(whole, redis.RedisError)

    @staticmethod
    def _sentinel(folder: Path, port: int, master: int) -> Process:
        folder.mkdir(parents=True)
        config = folder / "sentinel.conf"
        config.write_text(
            f"bind 127.0.0.1\nport {port}\ndir {folder}\n"
            f"sentinel monitor {_SERVICE} 127.0.0.1 {master} 2\n"
            f"sentinel down-after-milliseconds {_SERVICE} 500\n"
            f"sentinel failover-timeout {_SERVICE} 2000\n"
        )
        return Process(folder, ["redis-sentinel", str(config)])


class EtcdServer:
    """An etcd of one member."""

    def __init__(self, folder: Path) -> None:
        self.port, peers = free_port(), free_port()
        client, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{peers}"
        self.process = Process(
            folder,
            [
                *("etcd", "--data-dir", str(folder / "data"), "--name", "only", "--initial-cluster", f"only={peer}"),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            ],
        )
        self.settings = {"backend": "etcd", "host": "127.0.0.1", "port": str(self.port)}

    def start(self) -> None:
        self.process.start()

        def healthy() -> None:
            requests.get(f"http://127.0.0.1:{self.port}/health", timeout=1).raise_for_status()

        _until(healthy, requests.RequestException)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.stop(how)

    def strike(self) -> None:
        self.stop(signal.SIGKILL)

    def mend(self) -> None:
        self.start()


_SERVERS: Final = {"redis": RedisServer, "sentinel": SentinelRedis, "etcd": EtcdServer}


@contextmanager
def board_server(kind: str, folder: Path) -> Iterator[BoardServer]:
    """A board of a kind, running, for as long as it is needed."""
    server: BoardServer = _SERVERS[kind](folder)
    try:
        server.start()
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.stop(signal.SIGKILL)


def options_of(settings: Mapping[str, str], **given: object) -> JobBoardOptions:
    """What reaches a board, from the words of the settings."""
    values: dict[str, object] = {
        "backend": settings["backend"],
        "host": settings["host"],
        "port": int(settings["port"]),
        "namespace": "stillframe",
        "database": 0,
        "sentinel": settings.get("sentinel"),
        "sentinel_fallbacks": tuple(filter(None, settings.get("sentinel_fallbacks", "").split(","))),
        "tls": False,
        "timeout": 2.0,
        "look_seconds": 5.0,
        **dict.fromkeys(("username", "password", "sentinel_username", "sentinel_password")),
        **dict.fromkeys(("ca_file", "cert_file", "key_file")),
        **given,
    }
    return JobBoardOptions(**values)  # type: ignore[arg-type]  # each is of its own type


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until(answers: Callable[[], object], error: type[Exception]) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            answers()
        except error:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return
