"""Runs the benchmarks; see docs/reference/benchmarks.md."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from pathlib import Path
from typing import Final

from benchmarks.figures import as_json, as_table

BENCHMARKS: Final = {
    "snapshot-cost": "benchmarks.snapshot_cost",
    "guest-pause": "benchmarks.guest_pause",
    "restore-width": "benchmarks.restore_width",
    "list-pages": "benchmarks.list_pages",
    "idle-memory": "benchmarks.idle_memory",
    "many-instances": "benchmarks.many_instances",
    "many-workers": "benchmarks.many_workers",
}
# They need more than a machine, and run only where they are asked for by name.
BY_NAME: Final = {"openstack": "benchmarks.openstack_cloud"}


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; 1 if an aim is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"one of {', '.join(BENCHMARKS)}; without, all of these; by name also {', '.join(BY_NAME)}",
    )
    parser.add_argument("--rounds", type=int, default=15, help="repetitions of which the median counts (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    asked = parser.parse_args(arguments)
    unknown = set(asked.names) - set(BENCHMARKS) - set(BY_NAME)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    # What is mounted and what runs goes away on every way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    found = {}
    for name in asked.names or BENCHMARKS:
        # Only then: what one of them needs, the others may lack.
        benchmark = importlib.import_module((BENCHMARKS | BY_NAME)[name])
        found[name] = benchmark.measure(asked.rounds)
        print(f"\n{name}\n{as_table(found[name])}", flush=True)
    if asked.json:
        asked.json.write_text(as_json(found) + "\n")
    return int(any(figure.met is False for figures in found.values() for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
