"""Snapshot and restore of a server in the lab's cloud, against a script with openstacksdk and the command line."""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.lab.openstack.lab import Lab, openstack_lab
from tests.lab.openstack.tenant import Tenant, checked
from tests.openstack.service import own_user, serving

from benchmarks.figures import Figure, median
from benchmarks.filesystems import ON_DISK
from benchmarks.openstack_ways import USER, Server, Service, Way, other_ways

_COUNTS: Final = (1, 4, 8)
_ROUNDS: Final = 5
_SERVICE, _SCRIPT, _UNSAFE, _COMMANDS = "Stillframe", "script", "script without safety", "commands"
_STEPS: Final = ("snapshot", "restore")
_REQUEST: Final = re.compile(rb"^\[pid: .*\] (?:GET|POST|PUT|PATCH|DELETE|HEAD) /", re.MULTILINE)
_APIS: Final = ("cinder-api", "nova-api", "keystone")

Found = dict[tuple[str, str, int], list[float]]


def measure(rounds: int) -> list[Figure]:
    """Servers that are off, with 1, 4 and 8 volumes of 1 GiB; every round takes each way once, in turn."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-", dir=ON_DISK)))
        lab = stack.enter_context(openstack_lab())
        user = own_user(lab, stack.enter_context(serving(lab, folder)), USER)
        script, unsafe, commands = stack.enter_context(other_ways(lab.clouds(), folder))
        ways: dict[str, Way] = {_SERVICE: Service(user), _SCRIPT: script, _UNSAFE: unsafe, _COMMANDS: commands}
        tenant = Tenant(lab, USER)
        bench = _Bench(lab, tenant, ways)
        servers = [_server(tenant, count) for count in _COUNTS]
        # Logged in, and with all modules loaded.
        bench.round(servers[:1])
        bench.forget()
        for _ in range(min(_ROUNDS, rounds)):
            bench.round(servers)
        return _figures(bench)


class _Bench:
    """Takes times in seconds, and counts requests, by way, step and number of volumes."""

    def __init__(self, lab: Lab, tenant: Tenant, ways: Mapping[str, Way]) -> None:
        self.seconds: Found = defaultdict(list)
        self.requests: Found = defaultdict(list)
        self.loads: list[float] = []
        self._lab = lab
        self._tenant = tenant
        self._ways = ways

    def forget(self) -> None:
        for found in (self.seconds, self.requests, self.loads):
            found.clear()

    def round(self, servers: list[Server]) -> None:
        for server in servers:
            self.loads.append(os.getloadavg()[0])
            for name, way in self._ways.items():
                self._take(name, way, server)

    def _take(self, name: str, way: Way, server: Server) -> None:
        count = len(server[1])
        self._write(server, b"then")
        with self._measured((name, "snapshot", count)):
            taken = way.snapshot(server)
        self._write(server, b"now.")
        with self._measured((name, "restore", count)):
            way.restore(server, taken)
        self._require_restored(server)
        way.delete(taken)

    @contextmanager
    def _measured(self, key: tuple[str, str, int]) -> Iterator[None]:
        sizes = {name: self._lab.services[name].log.stat().st_size for name in _APIS}
        started = time.perf_counter()
        yield
        self.seconds[key].append(time.perf_counter() - started)
        logs = (self._lab.services[name].log.read_bytes()[size:] for name, size in sizes.items())
        self.requests[key].append(sum(len(_REQUEST.findall(log)) for log in logs))

    def _write(self, server: Server, word: bytes) -> None:
        for volume_id in server[1]:
            self._lab.write_volume(volume_id, 0, word * 1024)

    def _require_restored(self, server: Server) -> None:
        for volume_id in server[1]:
            assert self._lab.read_volume(volume_id, 0, 4096) == b"then" * 1024, volume_id
            shown: dict[str, Any] = checked(self._tenant.volume.get(f"/volumes/{volume_id}"))["volume"]
            assert shown["status"] == "in-use", shown


def _server(tenant: Tenant, count: int) -> Server:
    volume_ids = [tenant.create_volume() for _ in range(count)]
    server_id = tenant.create_server(volume_ids)
    tenant.stop(server_id)
    return server_id, volume_ids


def _figures(bench: _Bench) -> list[Figure]:
    figures = []
    for step in _STEPS:
        for count in _COUNTS:
            what = f"{step} of {count} volume{'s'[: count > 1]}"
            figures += [
                Figure(f"{what}, against the script", _ratio(bench, step, count, _SCRIPT), "x", below=1.1),
                Figure(f"{what}, against commands", _ratio(bench, step, count, _COMMANDS), "x", below=1 / 3),
            ]
            if step == "restore":
                figures.append(Figure(f"{what}, against no safety", _ratio(bench, step, count, _UNSAFE), "x"))
    for step in _STEPS:
        ways = [name for name in (_SERVICE, _SCRIPT, _UNSAFE, _COMMANDS) if step == "restore" or name != _UNSAFE]
        for count in _COUNTS:
            for name in ways:
                key, what = (name, step, count), f"{step} of {count}: {name}"
                figures.append(Figure(what, median(bench.seconds[key]), "s"))
                figures.append(Figure(f"{what}, requests", median(bench.requests[key]), ""))
    return [*figures, Figure("load of the machine", median(bench.loads), "")]


def _ratio(bench: _Bench, step: str, count: int, other: str) -> float:
    """The median of the rounds' ratios, for what else the machine does changes from round to round."""
    pairs = zip(bench.seconds[_SERVICE, step, count], bench.seconds[other, step, count], strict=True)
    return median([ours / theirs for ours, theirs in pairs])
