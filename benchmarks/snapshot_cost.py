"""What an instance snapshot costs beyond the bare `cp --reflink=always` of its disks, on XFS."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks import disks
from benchmarks.figures import Figure, median
from benchmarks.filesystems import mounted
from benchmarks.service import Client, serving

_COUNTS: Final = (1, 4, 16)
_SERVICE, _CP, _CLONE, _DURABLE = "service", "cp", "FICLONE", "cp and sync"

Times = dict[tuple[str, int], float]


def measure(rounds: int) -> list[Figure]:
    """Off instances with 1, 4 and 16 disks of 64 MiB of data; every round takes each way once, in turn."""
    with mounted("xfs") as folder, serving() as service:
        instances = {}
        for count in _COUNTS:
            paths = disks.make(folder, f"vm{count}", count)
            instances[service.declare(f"vm{count}", paths)] = paths
        times = _interleaved(service.client(), instances, folder / "bare", rounds)
    return _figures(times)


def _interleaved(client: Client, instances: dict[str, list[Path]], bare: Path, rounds: int) -> Times:
    ways = {_CP: disks.cloned_by_cp, _CLONE: disks.cloned_in_process, _DURABLE: disks.cloned_durably}
    found: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    for _ in range(rounds):
        for instance_id, paths in instances.items():
            for name, way in ways.items():
                found[name, len(paths)].append(_timed(way, paths, disks.emptied(bare)))
            started = time.perf_counter()
            snapshot_id = client.take(instance_id)
            client.wait(snapshot_id)
            found[_SERVICE, len(paths)].append(time.perf_counter() - started)
            client.delete(snapshot_id)
    return {key: median(values) * 1000 for key, values in found.items()}


def _timed(way: Callable[[Sequence[Path], Path], None], paths: Sequence[Path], folder: Path) -> float:
    started = time.perf_counter()
    way(paths, folder)
    return time.perf_counter() - started


def _figures(times: Times) -> list[Figure]:
    fewest, most = _COUNTS[0], _COUNTS[-1]

    def growth(way: str) -> float:
        return (times[way, most] - times[way, fewest]) / (most - fewest)

    figures = [
        Figure("snapshot of 1 disk, beyond one cp", times[_SERVICE, fewest] - times[_CP, fewest], "ms", below=100),
        Figure("each further disk, against one cp", growth(_SERVICE) / growth(_CP), "x", below=1.2),
        Figure("each further disk, against cp and sync", growth(_SERVICE) / growth(_DURABLE), "x"),
    ]
    for count in _COUNTS:
        figures += [
            Figure(f"{count} disk{'s'[: count > 1]}: {way}", times[way, count], "ms")
            for way in (_SERVICE, _DURABLE, _CP, _CLONE)
        ]
    return figures
