"""Our end of the watchdog: what is armed is resumed within 2 seconds if this process dies."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final

from stillframe.domain.errors import Unavailable

_PROGRAM: Final = Path(__file__).with_name("watchdog.py")
_ANSWER_SECONDS: Final = 5.0


class Guard:
    """Starts the watchdog process before its first use, and again if it was killed; safe to use from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._armed: dict[str, dict[str, Any]] = {}

    def arm(self, instance_id: str, qmp: Path, agent: Path | None, marker: Path) -> None:
        """Have the instance resumed if we die; returns when the watchdog knows, raises `Unavailable` if it does not."""
        order = {"arm": instance_id, "qmp": str(qmp), "agent": str(agent) if agent else None, "marker": str(marker)}
        with self._lock:
            self._armed[instance_id] = order
            try:
                self._tell(order)
            except OSError:
                self._restart()

    def disarm(self, instance_id: str) -> None:
        """Have the instance left alone from now on."""
        with self._lock:
            if self._armed.pop(instance_id, None) is None:
                return
            try:
                self._tell({"disarm": instance_id})
            except OSError:
                self._restart()

    def close(self) -> None:
        """End the watchdog; what is still armed is resumed."""
        with self._lock:
            self._end()
            self._armed.clear()

    @property
    def process_id(self) -> int | None:
        """The watchdog's process, or None before its first use."""
        return self._process.pid if self._process else None

    def _restart(self) -> None:
        self._end()
        try:
            for order in self._armed.values():
                self._tell(order)
        except OSError as problem:
            raise Unavailable(f"the watchdog process does not answer, so no guest is paused: {problem}") from problem

    def _tell(self, order: dict[str, Any]) -> None:
        process = self._process or self._start()
        if process.stdin is None or process.stdout is None:
            raise BrokenPipeError
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], _ANSWER_SECONDS)
        if not ready or process.stdout.readline() != b"ok\n":
            raise TimeoutError("no answer")

    def _start(self) -> subprocess.Popen[bytes]:
        # Isolated, without site packages: it has to start at once, and to work whatever happened to our environment.
        self._process = subprocess.Popen(
            (sys.executable, "-I", "-S", str(_PROGRAM)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    continue
        # It may still be at a rescue that has to end; a thread collects it, so that no zombie stays.
        threading.Thread(target=process.wait, name="watchdog-reaper", daemon=True).start()
