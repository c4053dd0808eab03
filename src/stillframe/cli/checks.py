"""Checks that are given up when what they look at does not answer."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from stillframe.cli.exit_codes import CommandFailed, ExitCode, as_failure
from stillframe.domain.errors import StillframeError, Unavailable
from stillframe.drivers.finding import Check, Finding, fail, warn

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

LOG = logging.getLogger(__name__)

T = TypeVar("T")

_AT_A_TIME: Final = 16
_POLL_SECONDS: Final = 0.1
_THREADS: Final = Path("/proc/self/task")
# How much longer than one check the whole may be silent, on a machine that has a lot to do.
_SLACK: Final = 600.0
_END_SECONDS: Final = 2.0


class Checks:
    """Checks that are looked at side by side; one that tells nothing for so many idle seconds is not waited for."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._idle = _Idle()

    def findings(self, checks: Sequence[Check]) -> Iterator[Finding]:
        """What they find, in their order, and then what the checks find that they have named."""
        named: list[Check] = []
        for start in range(0, len(checks), _AT_A_TIME):
            for running in [_RunningCheck(check, self._idle) for check in checks[start : start + _AT_A_TIME]]:
                for found in running.result(self._seconds):
                    if isinstance(found, Check):
                        named.append(found)
                    else:
                        yield found
        if named:
            yield from self.findings(named)

    def opened(
        self, name: str, way: Callable[[], tuple[T | None, Sequence[Finding]]], mend: str
    ) -> tuple[T | None, Sequence[Finding]]:
        """What a check opens, None where it did not or does not answer, and what it finds."""
        made: list[T | None] = []

        def look() -> Sequence[Finding]:
            one, findings = way()
            made.append(one)
            return findings

        findings = list(self.findings([Check(name, look, mend)]))
        return (made[0] if made else None), findings


class _Idle:
    """The time in which no thread of this process ran or waited for a processor: what is not done then has to wait.

    So a machine that has a lot to do is not taken for a disk that does not answer.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._then, self._busy = time.monotonic(), _busy()

    def look(self) -> None:
        """Has to be called again and again."""
        now, busy = time.monotonic(), _busy()
        self.seconds += max(0.0, now - self._then - max(0.0, busy - self._busy))
        self._then, self._busy = now, busy


def _busy() -> float:
    """The seconds that threads of this process ran and waited for a processor; see the kernel's sched-stats.rst."""
    total = 0
    for one in _THREADS.glob("*/schedstat"):
        # A thread may end meanwhile.
        with suppress(OSError):
            ran, waited, _slices = one.read_text().split()
            total += int(ran) + int(waited)
    return total / 1e9


class _Running:
    """Something in a thread of its own, for which nobody waits at the end of the process.

    `run` is given what it may call as a sign of life.
    """

    def __init__(self, name: str, run: Callable[[Callable[[], None]], None], idle: _Idle) -> None:
        self._run, self._idle, self._since = run, idle, idle.seconds
        self._ended = threading.Event()
        threading.Thread(target=self._go, name=name, daemon=True).start()

    def _go(self) -> None:
        try:
            self._run(self._live)
        finally:
            self._ended.set()

    def _live(self) -> None:
        self._since = self._idle.seconds

    def ended(self, seconds: float) -> bool:
        """Wait for the end; False once it has given no sign of life for so many idle seconds."""
        while not self._ended.wait(_POLL_SECONDS):
            self._idle.look()
            if self._idle.seconds - self._since > seconds:
                return False
        return True


class _RunningCheck:
    def __init__(self, check: Check, idle: _Idle) -> None:
        self._check = check
        self._found: list[Finding | Check] = []
        self._running = _Running(check.name, self._look, idle)

    def _look(self, live: Callable[[], None]) -> None:
        try:
            for found in self._check.look():
                self._found.append(found)
                live()
        except StillframeError as error:
            self._found.append(fail(self._check.name, error.message, self._check.mend))
        except Exception as error:  # noqa: BLE001  # a check that breaks off must not hide the others
            self._found.append(fail(self._check.name, f"it cannot be looked at: {error}", self._check.mend))

    def result(self, seconds: float) -> Sequence[Finding | Check]:
        if self._running.ended(seconds):
            return self._found
        told = fail if self._check.grave else warn
        return [*self._found, told(self._check.name, unanswered(seconds), self._check.mend)]


class Answers:
    """What is asked side by side, each in a thread of its own, and not waited for once it is silent for so long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._idle = _Idle()

    def of(self, asked: Mapping[str, Callable[[Callable[[], None]], T]]) -> Mapping[str, T | StillframeError]:
        """Each answer by its name, or why there is none; who is asked may call its argument, as a sign of life."""
        answers: dict[str, T | StillframeError] = {}
        names = list(asked)
        for start in range(0, len(names), _AT_A_TIME):
            running = {name: _Asked(name, asked[name], self._idle) for name in names[start : start + _AT_A_TIME]}
            answers |= {name: one.answer(self._seconds) for name, one in running.items()}
        return answers

    def to(self, name: str, ask: Callable[[], T]) -> T:
        """One answer; raises `Unavailable` where there is none, and what it raises."""
        answer = self.of({name: lambda _live: ask()})[name]
        if isinstance(answer, StillframeError):
            raise answer
        return answer


class _Asked(Generic[T]):
    def __init__(self, name: str, ask: Callable[[Callable[[], None]], T], idle: _Idle) -> None:
        self._name, self._ask = name, ask
        self._outcome: Future[T] = Future()
        self._running = _Running(name, self._look, idle)

    def _look(self, live: Callable[[], None]) -> None:
        try:
            self._outcome.set_result(self._ask(live))
        except Exception as error:  # noqa: BLE001  # it is raised where the answer is asked for
            self._outcome.set_exception(error)

    def answer(self, seconds: float) -> T | StillframeError:
        if not self._running.ended(seconds):
            return Unavailable(f"{self._name} {unanswered(seconds)}.")
        try:
            return self._outcome.result()
        except StillframeError as error:
            return error


def unanswered(seconds: float) -> str:
    """In words."""
    return f"did not answer within {seconds:g} s"


class BrokenOff(Exception):
    """The process apart did not come to its end; `mend` says what to do about it."""

    def __init__(self, message: str, mend: str) -> None:
        super().__init__(message)
        self.mend = mend


def apart(look: Callable[[], Iterable[T]], seconds: float) -> Iterator[T]:
    """Look in a process of its own, which is left alone at the end if the kernel does not let it end.

    A thread that waits for a disk that does not answer cannot be ended, and no process ends before its threads. Raises
    `CommandFailed` as `look`, and `BrokenOff`.
    """
    receiver, sender = Pipe(duplex=False)
    process = os.fork()
    if process == 0:
        _tell(sender, look)
    sender.close()
    try:
        yield from _heard(receiver, seconds + _SLACK)
    finally:
        receiver.close()
        _end(process)


def _tell(sender: Connection, look: Callable[[], Iterable[T]]) -> None:
    """Send each finding, and None when that was all, or why there is no more; ends the process."""
    try:
        # Whoever reads what the program says must not wait for a process that cannot be ended.
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silent, stream)
        try:
            for found in look():
                sender.send((found, None))
            sender.send((None, None))
        except (CommandFailed, StillframeError, OSError) as error:
            failure = as_failure(error)
            sender.send((None, (failure.code, str(failure))))
    except BaseException:  # noqa: BLE001  # the other side sees that there is no more
        os._exit(1)
    os._exit(0)


def _heard(receiver: Connection, seconds: float) -> Iterator[T]:
    while receiver.poll(seconds):
        try:
            heard: tuple[T | None, tuple[ExitCode, str] | None] = receiver.recv()
        except EOFError:
            raise BrokenOff("the process that looks broke off", "report this as a bug") from None
        found, failure = heard
        if failure is not None:
            raise CommandFailed(*failure)
        if found is None:
            return
        yield found
    raise BrokenOff("the process that looks does not go on", "see whether this machine has memory and time left")


def _end(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    until = time.monotonic() + _END_SECONDS
    while os.waitpid(process, os.WNOHANG) == (0, 0) and time.monotonic() < until:
        time.sleep(0.01)
