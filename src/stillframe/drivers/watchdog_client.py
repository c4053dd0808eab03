"""Our end of a watchdog process: what is armed is let run again by it if this process dies."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from stillframe.domain.errors import Unavailable

_ANSWER_SECONDS: Final = 5.0

Order = Mapping[str, Any]


class WatchdogClient:
    """Starts a watchdog before its first use, and again if it was killed; safe to use from threads.

    The watchdog is a program that is started by path. It reads orders, one JSON object a line: `{"arm": key, ...}` and
    `{"disarm": key}`, and answers each by the line `ok`. At the end of its input it acts on all that is armed. What is
    in an order stays between the two processes.
    """

    def __init__(self, program: Path, *flags: str, answer_seconds: float = _ANSWER_SECONDS) -> None:
        self._command = (sys.executable, *flags, str(program))
        self._answer_seconds = answer_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._armed: dict[str, Order] = {}

    def arm(self, key: str, order: Order) -> None:
        """Arm an order; returns when the watchdog knows of it, raises `Unavailable` if it does not."""
        order = {"arm": key, **order}
        with self._lock:
            self._armed[key] = order
            try:
                self._tell(order)
            except OSError:
                self._restart()

    def disarm(self, key: str) -> None:
        """Have what was armed left alone from now on."""
        with self._lock:
            if self._armed.pop(key, None) is None:
                return
            try:
                self._tell({"disarm": key})
            except OSError:
                self._restart()

    def close(self) -> None:
        """End the watchdog; what is still armed is acted on."""
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
            raise Unavailable(f"The watchdog process does not answer, so no guest is paused: {problem}") from None

    def _tell(self, order: Order) -> None:
        process = self._process or self._start()
        if process.stdin is None or process.stdout is None:
            raise BrokenPipeError
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], self._answer_seconds)
        if not ready or process.stdout.readline() != b"ok\n":
            raise TimeoutError("no answer")

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            self._command,
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
