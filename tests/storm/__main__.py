"""`make storm`: one big storm, told by its seed; the exit code says whether all went well."""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.lab.filesystems import mounted
from tests.storm.storm import Weather, storm


def main() -> int:
    """Read what kind of storm is wished from the environment, have it, and tell how it went."""
    wished = {name.removeprefix("STORM_").lower(): value for name, value in os.environ.items() if value}
    operations = int(wished.get("operations", "300"))
    weather = Weather(
        seed=int(wished.get("seed", random.SystemRandom().randrange(1 << 31))),
        board=wished.get("board", "redis"),
        database=wished.get("database", "postgresql"),
        operations=operations,
        instances=max(1, operations // 12),
        guests=int(wished.get("guests", max(1, operations // 72))),
    )
    print(f"STORM_SEED={weather.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="storm-"))
    with ExitStack() as stack:
        kind = wished.get("files", "xfs" if os.geteuid() == 0 else "plain")
        place = folder if kind == "plain" else stack.enter_context(mounted(folder, kind, 2 << 30))
        report = storm(weather, place, calm=bool(wished.get("calm")))
        if report.wrong:
            for log in (*place.glob("*.log"), place / "ledger"):
                shutil.copy(log, folder)
    print(report)
    if report.wrong:
        print(f"the logs are in {folder}; STORM_SEED={weather.seed} has the same again")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
