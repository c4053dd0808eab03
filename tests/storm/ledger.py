"""Who did what at the platform: every call that changes something is written down before it begins.

The rule that a storm is judged by: once a call has begun under a claim on an operation, none begins under an earlier
one. A call that was under way when its process was stopped may end late. One that its process was stopped before, after
it had made sure of its claim, begins late: each thread may do that once each time that its process goes on.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stillframe.domain.errors import BackendError
from stillframe.domain.operation import Operation
from stillframe.drivers.call import Call
from tests.harness.faults import subject

# They look, and change nothing.
_LOOKS: Final = frozenset(
    {"list_instances", "get_instance", "fenced_by", "list_volumes", "get_volume", "find", "check_cut", "check_restore"}
)
_LOOK_EVERY: Final = 0.05


@dataclass(frozen=True, slots=True)
class Entry:
    """One line; `generation` numbers the claims on an operation."""

    at: float
    operation: str
    generation: int
    worker: str
    method: str
    what: str
    thread: int = 0


class Ledger:
    """A file that many processes append to, a line at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, call: Call, worker: str, method: str, what: str) -> None:
        self._write(call.operation_id, _generation(call), worker, method, what)

    def goes_on(self, worker: str) -> None:
        """Note that a process that was stopped is about to go on."""
        self._write("-", 0, worker, "-", "goes-on")

    def close(self) -> None:
        os.close(self._file)

    def _write(self, *what: object) -> None:
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        words = (f"{now:.6f}", *what, threading.get_native_id())
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())

    def read(self) -> list[Entry]:
        """In the order of writing."""
        return [_entry(line) for line in self._path.read_text().splitlines()]


class Recorder:
    """Around a driver: writes down what is called.

    A call that a mark `fail-METHOD` or `fail-METHOD-ID` is there for fails; the id is that of the volume or copy. One
    that a mark `hold-METHOD` is there for begins, does nothing until the mark is gone, and then is checked again.
    """

    def __init__(self, ledger: Ledger, worker: str, marks: Path) -> None:
        self._ledger = ledger
        self._worker = worker
        self._marks = marks

    def around(self, name: str, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        call = next((one for one in args if isinstance(one, Call)), None)
        if name in _LOOKS or call is None:
            return method(*args, **kwargs)
        self._ledger.write(call, self._worker, name, "begins")
        try:
            self._hold(call, name)
            about = subject(args) or ""
            if any((self._marks / mark).exists() for mark in (f"fail-{name}", f"fail-{name}-{about}")):
                raise BackendError("this does not work, as the test wished")
            return method(*args, **kwargs)
        finally:
            self._ledger.write(call, self._worker, name, "ends")

    def _hold(self, call: Call, name: str) -> None:
        mark = self._marks / f"hold-{name}"
        if not mark.exists():
            return
        while mark.exists():
            time.sleep(_LOOK_EVERY)
        call.check()


def overtaken(entries: Sequence[Entry]) -> list[Entry]:
    """Calls that began under a claim after one had begun under a later claim."""
    latest: dict[str, int] = {}
    late: dict[str, set[int]] = {}
    wrong = []
    for entry in entries:
        if entry.what == "goes-on":
            late[entry.worker] = set()
        if entry.what != "begins":
            continue
        if entry.generation < latest.get(entry.operation, 0):
            if entry.worker not in late or entry.thread in late[entry.worker]:
                wrong.append(entry)
            else:
                late[entry.worker].add(entry.thread)
        latest[entry.operation] = max(entry.generation, latest.get(entry.operation, 0))
    return wrong


def _generation(call: Call) -> int:
    """That of the claim that a call is made under: it does not say, but what it is checked by does."""
    if "generation" not in Operation.__dataclass_fields__:
        # The first release knows no claims.
        return 0
    operation: Operation = call.check.__self__.operation  # type: ignore[attr-defined]
    return operation.generation


def _entry(line: str) -> Entry:
    at, operation, generation, worker, method, what, thread = line.split()
    return Entry(float(at), operation, int(generation), worker, method, what, int(thread))
