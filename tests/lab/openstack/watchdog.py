"""The end of a lab: as soon as its starter is gone, however that ended, kill all its processes and remove its folder.

Runs in a session of its own; the starter holds the other end of the standard input, which the kernel closes with it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def guarded(mark: str, folder: Path, *, keep: bool = False) -> Iterator[None]:
    """While the context lasts, a watchdog waits for its end, in whatever way: then no process with this `mark`
    (`NAME=value`, in its environment) is left, nor the folder, unless it is kept.
    """
    command = [sys.executable, "-I", "-S", __file__, mark, str(folder), "keep" if keep else "remove"]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        guard.communicate()


def processes_of(mark: bytes) -> Iterator[int]:
    """The ids of the living processes that were started with this `NAME=value` in their environment."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


def kill_all(mark: bytes) -> None:
    """Kill until there is none left, for one may fork while the others are looked for."""
    while found := list(processes_of(mark)):
        for number in found:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.05)


def main() -> None:
    mark, folder, keep = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.read()
    kill_all(mark.encode())
    if keep != "keep":
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
