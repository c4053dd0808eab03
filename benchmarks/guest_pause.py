"""How long a guest stands still for a snapshot of three disks, by its QEMU's own clock, while it writes to them."""

from __future__ import annotations

import json
import socket
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.lab.guest.disks import make_disks
from tests.lab.guest.image import GuestUnavailableError, Image, build_image
from tests.lab.guest.machine import Guest

from benchmarks.figures import Figure, median, percentile
from benchmarks.filesystems import GIB, mounted
from benchmarks.service import Running, serving

_KINDS: Final = ("btrfs", "xfs")


def measure(rounds: int) -> list[Figure]:
    """A guest on each kind of file system, one after the other, so that they do not take each other's time."""
    with TemporaryDirectory(prefix="bench-") as name, serving() as service:
        try:
            image = build_image(Path(name))
        except GuestUnavailableError as problem:
            raise SystemExit(f"the guest cannot be made: {problem}") from problem
        pauses = _pauses(image, service, rounds)
    figures = []
    for kind, found in pauses.items():
        figures += [
            Figure(f"{kind}: pause, median", median(found), "ms", below=60),
            Figure(f"{kind}: pause, longest of {len(found)}", max(found), "ms"),
            Figure(f"{kind}: pause, 90 of 100 at most", percentile(found, 90), "ms"),
        ]
    return figures


def _pauses(image: Image, service: Running, rounds: int) -> dict[str, list[float]]:
    """By file system and by the consistency that was achieved, which says whether the guest was frozen as well."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    client = service.client()
    for kind in _KINDS:
        with _writing_guest(image, kind) as guest:
            agent = str(guest.agent_socket)
            instance_id = service.declare(
                kind, guest.disks.paths, qmp_socket=str(guest.monitor_socket), guest_agent_socket=agent
            )
            watch = _Watch(guest.control_socket)
            # The first snapshot starts the watchdog, too.
            for round_number in range(rounds + 1):
                snapshot_id = client.take(instance_id)
                shown = client.wait(snapshot_id)
                pause = watch.pause()
                if round_number:
                    found[f"{kind}, {shown['consistency']['level']}"].append(pause)
                client.delete(snapshot_id)
            watch.close()
    return found


@contextmanager
def _writing_guest(image: Image, kind: str) -> Iterator[Guest]:
    with TemporaryDirectory(prefix="bench-") as name, mounted(kind, GIB) as folder:
        guest = Guest(image, Path(name), make_disks(folder))
        try:
            guest.start()
            guest.wait_until_written()
            yield guest
        finally:
            guest.kill()


class _Watch:
    """Listens to what QEMU says of itself, on a monitor that the service does not know."""

    def __init__(self, monitor: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(str(monitor))
        self._stream = self._socket.makefile("rwb")
        self._stream.readline()
        self._stream.write(b'{"execute": "qmp_capabilities"}\n')
        self._stream.flush()
        self._stream.readline()

    def pause(self) -> float:
        """Milliseconds from the oldest STOP that was not asked for yet to its RESUME."""
        stopped = self._moment_of("STOP")
        return (self._moment_of("RESUME") - stopped) / 1000

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def _moment_of(self, event: str) -> int:
        """In microseconds."""
        while True:
            said: dict[str, Any] = json.loads(self._stream.readline())
            if said.get("event") == event:
                return int(said["timestamp"]["seconds"]) * 1_000_000 + int(said["timestamp"]["microseconds"])
