"""What the service keeps in memory while it has nothing to do, with all processes that it has started."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks import disks
from benchmarks.figures import Figure
from benchmarks.filesystems import GIB, mounted
from benchmarks.service import Client, Running, serving, tree

_SNAPSHOTS: Final = 50
_AIM: Final = 120


def measure(rounds: int) -> list[Figure]:  # noqa: ARG001 -- memory does not vary
    """Just started, and after work of every kind."""
    figures = []
    with mounted("xfs", GIB) as folder, serving() as service:
        client = service.client()
        time.sleep(2)
        figures += _figures("just started", service, resident_below=_AIM)
        instance_id = service.declare("vm", disks.make(folder, "vm", 3, disks.MIB))
        _work(client, instance_id)
        with _machine(folder) as (monitor, path):
            # For a guest that runs a second process is started, which lets it go on if the service dies.
            client.wait(client.take(service.declare("machine", [path], qmp_socket=str(monitor))))
        time.sleep(2)
        # From here on there are two processes, and most of what the second has it shares with the first.
        figures += _figures(f"after {_SNAPSHOTS} snapshots, restores and deletions", service, proportional_below=_AIM)
    return figures


@contextmanager
def _machine(folder: Path) -> Iterator[tuple[Path, Path]]:
    """A machine with nothing on its one disk: its monitor, and the disk."""
    (path,) = disks.make(folder, "machine", 1, disks.MIB)
    # The kernel limits the length of a socket's path.
    with TemporaryDirectory(prefix="bench-") as name:
        monitor = Path(name, "monitor")
        command = shlex.split("qemu-system-x86_64 -machine pc -accel tcg -nodefaults -display none -m 64")
        command += [
            "-qmp",
            f"unix:{monitor},server=on,wait=off",
            "-blockdev",
            f"raw,node-name=disk,file.driver=file,file.filename={path}",
        ]
        command += ["-device", "virtio-blk-pci,drive=disk"]
        process = subprocess.Popen(command)
        try:
            while not monitor.exists() and process.poll() is None:
                time.sleep(0.05)
            yield monitor, path
        finally:
            process.kill()
            process.wait()


def _work(client: Client, instance_id: str) -> None:
    for _ in range(_SNAPSHOTS):
        snapshot_id = client.take(instance_id)
        client.wait(snapshot_id)
        client.restore(instance_id, snapshot_id)
        client.wait(snapshot_id)
        client.page(100)
        client.delete(snapshot_id)


def _figures(
    when: str, service: Running, resident_below: float | None = None, proportional_below: float | None = None
) -> list[Figure]:
    resident, proportional = (
        sum(_kibibytes(process_id, key) for process_id in tree(service.process_id)) / 1024 for key in ("Rss", "Pss")
    )
    return [
        Figure(f"{when}: resident", resident, "MiB", resident_below),
        Figure(f"{when}: proportional", proportional, "MiB", proportional_below),
    ]


def _kibibytes(process_id: int, key: str) -> int:
    for line in Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise LookupError(key)
