"""A model of one night: snapshots of 50,000 instances, played through with what `many-workers` measured.

    python -m benchmarks.nightly --service-ms 30 --database-ms 16

Nothing is run: each worker process has one interpreter and so many operations at a time, the database so many
processors, and each operation needs some time of both and some of the platform, which works on all of them at once.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Night:
    """What the night is like; times in seconds.

    `service` and `database` are processor time of an operation, in one worker process and in the database, which has
    so many `processors`; `slots` is `[engine] workers`, the operations that one process carries out at a time.
    """

    instances: int
    service: float
    database: float
    platform: float
    processors: int
    slots: int
    jitter: float = 0.3

    def play(self, workers: int, seed: int = 1) -> float:
        """Seconds until the last snapshot is there, with so many worker processes."""
        chance = random.Random(seed)
        interpreters = [0.0] * workers
        processors = [0.0] * self.processors
        heapq.heapify(processors)
        # When each place of each worker is free again; whoever is free first takes the next operation.
        places = [(0.0, worker) for worker in range(workers) for _slot in range(self.slots)]
        heapq.heapify(places)
        ended = 0.0
        for _instance in range(self.instances):
            free, worker = heapq.heappop(places)
            # An interpreter carries one thing out at a time, however many places it has.
            interpreters[worker] = max(free, interpreters[worker]) + self.service
            processor = max(heapq.heappop(processors), interpreters[worker] - self.service) + self.database
            heapq.heappush(processors, processor)
            waited = self.platform * chance.uniform(1 - self.jitter, 1 + self.jitter)
            end = max(interpreters[worker], processor) + waited
            ended = max(ended, end)
            heapq.heappush(places, (end, worker))
        return ended

    def needed(self, hours: float, most: int = 512) -> int | None:
        """The fewest worker processes that are done in so many hours, or None if no number of them is."""
        few, many = 1, most
        if self.play(most) > hours * 3600:
            return None
        while few < many:
            half = (few + many) // 2
            few, many = (few, half) if self.play(half) <= hours * 3600 else (half + 1, many)
        return few


def main(arguments: Sequence[str] | None = None) -> None:
    """Print how many worker processes it takes, by how long the platform takes and how long the night is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nightly", description=__doc__)
    parser.add_argument("--instances", type=int, default=50_000)
    parser.add_argument("--service-ms", type=float, required=True, help="processor time of an operation in the worker")
    parser.add_argument("--database-ms", type=float, required=True, help="processor time of it in the database")
    parser.add_argument("--processors", type=int, default=4, help="of the database (%(default)s)")
    asked = parser.parse_args(arguments)
    table = Table("platform takes", "at a time per worker", *(f"in {hours} h" for hours in (1, 2, 4, 8)))
    for platform in (1, 5, 20, 60, 300):
        for slots in (8, 32, 128):
            night = Night(
                asked.instances, asked.service_ms / 1000, asked.database_ms / 1000, platform, asked.processors, slots
            )
            cells = [night.needed(hours) for hours in (1, 2, 4, 8)]
            table.add_row(f"{platform} s", str(slots), *("-" if cell is None else str(cell) for cell in cells))
    Console().print(table)


if __name__ == "__main__":
    main()
