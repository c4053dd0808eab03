"""How much longer the restore of 16 disks takes than that of the slowest one of them, and of 16 plain `cp`."""

from __future__ import annotations

import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import disks
from benchmarks.figures import Figure, median
from benchmarks.filesystems import GIB, mounted
from benchmarks.service import Client, Running, serving

_DISKS: Final = 16
_KINDS: Final = ("xfs", "ext4")
_SIZE: Final = 64 * disks.MIB


def measure(rounds: int) -> list[Figure]:
    """Instances that are off; every round restores all disks at once and each alone, and lets `cp` do the same."""
    figures = []
    for kind in _KINDS:
        # Original, snapshot, draft of the restore, and what cp writes.
        with mounted(kind, 10 * GIB) as folder, serving() as service:
            figures += _measure_on(kind, folder, service, max(3, rounds // 3))
    return figures


def _measure_on(kind: str, folder: Path, service: Running, rounds: int) -> list[Figure]:
    paths = disks.make(folder, "vm", _DISKS, _SIZE)
    instance_id, client = service.declare("vm", paths), service.client()
    everything = _taken(client, instance_id, ())
    volumes = sorted(everything["snapshots"])
    single = [_taken(client, instance_id, [volume])["id"] for volume in volumes]
    found: defaultdict[str, list[float]] = defaultdict(list)
    bare = folder / "bare"
    for _ in range(rounds):
        found["all"].append(_restored(client, instance_id, everything["id"]))
        found["cp of all"].append(_copied(paths, disks.emptied(bare)))
        for number, snapshot_id in enumerate(single):
            found[f"only {number}"].append(_restored(client, instance_id, snapshot_id))
        found["cp of one"].append(_copied(paths[:1], disks.emptied(bare)))
    times = {name: median(values) * 1000 for name, values in found.items()}
    slowest = max(times[f"only {number}"] for number in range(_DISKS))
    return [
        Figure(f"{kind}: {_DISKS} disks against the slowest alone", times["all"] / slowest, "x", below=1.5),
        Figure(f"{kind}: {_DISKS} cp at once against one", times["cp of all"] / times["cp of one"], "x"),
        Figure(f"{kind}: restore of {_DISKS} disks", times["all"], "ms"),
        Figure(f"{kind}: restore of the slowest alone", slowest, "ms"),
        Figure(f"{kind}: {_DISKS} cp at once, durable", times["cp of all"], "ms"),
        Figure(f"{kind}: one cp, durable", times["cp of one"], "ms"),
    ]


def _taken(client: Client, instance_id: str, volumes: Sequence[str]) -> dict[str, Any]:
    return client.wait(client.take(instance_id, volumes))


def _restored(client: Client, instance_id: str, snapshot_id: str) -> float:
    started = time.perf_counter()
    client.restore(instance_id, snapshot_id)
    client.wait(snapshot_id)
    return time.perf_counter() - started


def _copied(paths: Sequence[Path], folder: Path) -> float:
    """All at once, each then synced."""
    started = time.perf_counter()
    script = 'cp --reflink=auto "$0" "$1" && sync "$1"'
    running = [subprocess.Popen(["sh", "-c", script, path, folder / path.name]) for path in paths]
    assert not any(process.wait() for process in running)
    return time.perf_counter() - started
