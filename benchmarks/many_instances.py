"""Snapshots of 200 instances at once over HTTP, against the same one after another."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from benchmarks import disks
from benchmarks.figures import Figure, median
from benchmarks.filesystems import mounted
from benchmarks.service import Client, Running, serving

_INSTANCES: Final = 200
_IN_TURN: Final = 20
_ROUNDS: Final = 2


def measure(rounds: int) -> list[Figure]:
    """Off instances with one disk each; every round takes all at once, and some of them in turn."""
    with mounted("xfs") as folder, serving() as service:
        paths = disks.make(folder, "vm", _INSTANCES, disks.MIB)
        instances = [service.declare(f"vm{number}", [path]) for number, path in enumerate(paths)]
        client = service.client()
        at_once, in_turn, accepted, longest, failed = [], [], [], [], 0
        for _ in range(min(_ROUNDS, rounds)):
            in_turn += [_seconds_for(client, instance_id) for instance_id in instances[:_IN_TURN]]
            burst = _Burst(service, instances)
            failed += burst.failed
            at_once.append(burst.seconds / _INSTANCES)
            longest.append(max(burst.waits))
            accepted.append(max(burst.accepted))
    return [
        Figure(f"{_INSTANCES} at once: failures", failed, "", below=1),
        Figure("time for each at once, against in turn", median(at_once) / median(in_turn), "x"),
        Figure("at once", 1 / median(at_once), "1/s"),
        Figure("in turn", 1 / median(in_turn), "1/s"),
        Figure("at once: longest wait for the snapshot", median(longest), "s"),
        Figure("at once: longest wait for the reply", median(accepted), "s"),
    ]


def _seconds_for(client: Client, instance_id: str) -> float:
    started = time.perf_counter()
    client.wait(client.take(instance_id))
    return time.perf_counter() - started


class _Burst:
    """All requests begin together, each on a connection of its own; one more watches what becomes of them."""

    def __init__(self, service: Running, instances: list[str]) -> None:
        self.failed = 0
        self.accepted: list[float] = []
        self._service = service
        self._gate = threading.Barrier(len(instances) + 1)
        before = {one["id"] for one in service.client().page(1000)}
        with ThreadPoolExecutor(len(instances)) as pool:
            asked = [pool.submit(self._take, instance_id) for instance_id in instances]
            self._gate.wait()
            self._started = time.perf_counter()
            self.waits = self._watch(service.client(), before, len(instances))
            self.seconds = time.perf_counter() - self._started
            assert all(one.result() for one in asked)

    def _take(self, instance_id: str) -> str:
        client = self._service.client()
        self._gate.wait()
        started = time.perf_counter()
        snapshot_id = client.take(instance_id)
        self.accepted.append(time.perf_counter() - started)
        client.close()
        return snapshot_id

    def _watch(self, client: Client, before: set[str], count: int) -> list[float]:
        waits: dict[str, float] = {}
        while len(waits) < count:
            time.sleep(0.25)
            moment = time.perf_counter() - self._started
            for one in client.page(count):
                if one["id"] not in before and not one["status"].endswith("ing"):
                    waits.setdefault(one["id"], moment)
                    self.failed += one["status"] != "available" and waits[one["id"]] == moment
        return list(waits.values())
