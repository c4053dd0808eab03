"""Talking in JSON lines over a unix socket with somebody who may be hostile: bounded in time, bytes and depth.

Nothing here needs anything but the standard library: the watchdog, which starts without our environment, talks by it
as the service does. All that goes wrong is an `OSError`, but for a refusal in the other side's own words.
"""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from stillframe.drivers.qemu.processes import listener

# The answers that are asked for here take less than a hundred bytes; what an earlier client has left unread may come
# before them.
MOST_BYTES: Final = 1 << 20
MOST_LINE: Final = 1 << 16
# All brackets of a line, closed ones and those in strings too: so nobody has to parse it to know how deep it can be.
MOST_BRACKETS: Final = 256
_MOST_WORDS: Final = 200
_SENTINEL: Final = b"\xff"
_SYNC_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 0.05
_MOST_COUNTED: Final = 1 << 31
# What a guest may ask of a disk, as QEMU counts it (qapi/block-core.json, BlockDeviceStats).
_REQUESTS: Final = ("rd_operations", "wr_operations", "unmap_operations", "flush_operations", "wr_bytes", "unmap_bytes")


class NotAskedError(OSError):
    """The other side does not talk; it was asked for nothing yet, so nothing has happened."""


class UnansweredError(OSError):
    """It was asked and has not answered, or has answered nonsense: nobody knows what it has done, or still does."""


class GarbledError(OSError):
    """What was said is no message: too long, too deep, or no JSON object."""


class RefusalError(Exception):
    """It was asked, and has answered that it does not do it."""


class Conversation:
    """One connection; `seconds` bounds all of it together, `MOST_BYTES` all that is heard in it."""

    def __init__(self, path: str, seconds: float) -> None:
        self._begun = time.monotonic()
        self._seconds = seconds
        self._budget = MOST_BYTES
        self._heard = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._reach(path)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    @property
    def process(self) -> str | None:
        """The name of the process that listens there; see `processes`."""
        return listener(self._socket)

    def last(self, seconds: float) -> None:
        """Let it end so many seconds after it began, and no earlier or later."""
        self._seconds = seconds

    def say(self, message: Mapping[str, Any], before: bytes = b"") -> None:
        """Send one message; raises `OSError`."""
        self._bound_wait()
        self._socket.sendall(before + json.dumps(message).encode() + b"\n")

    def hear(self) -> dict[str, Any]:
        """The next message; raises `GarbledError` for a line that is none, and other `OSError` where no line comes."""
        searched = 0
        while (end := self._heard.find(b"\n", searched)) < 0:
            searched = len(self._heard)
            if searched > MOST_LINE:
                self._heard.clear()
                raise GarbledError("it said a line without an end")
            self._bound_wait()
            more = self._socket.recv(MOST_LINE)
            if not more:
                raise ConnectionResetError("it closed the connection")
            self._budget -= len(more)
            if self._budget < 0:
                raise ConnectionAbortedError(f"it said more than {MOST_BYTES} bytes, and no answer among them")
            self._heard += more
        line = bytes(self._heard[:end])
        del self._heard[: end + 1]
        return parsed(line)

    def _reach(self, path: str) -> None:
        """Connect, and wait for it where too many wait to be let in already."""
        while True:
            self._bound_wait()
            try:
                self._socket.connect(path)
            except BlockingIOError:
                time.sleep(_AGAIN_SECONDS)
            else:
                return

    def _bound_wait(self) -> None:
        left = self._begun + self._seconds - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"it took longer than {self._seconds:g} s")
        self._socket.settimeout(left)


def parsed(line: bytes) -> dict[str, Any]:
    """The message that a line holds; raises `GarbledError`."""
    words = line.rpartition(_SENTINEL)[2]
    if words.count(b"[") + words.count(b"{") > MOST_BRACKETS:
        raise GarbledError("it said something of too many parts")
    try:
        found = json.loads(words, parse_constant=_no_number)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise GarbledError("it said something that is no message")
    return found


class _Speaker:
    """What ends a conversation with its block."""

    _talk: Conversation

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._talk.__exit__(kind, problem, trace)


class Agent(_Speaker):
    """A conversation with a guest agent (QEMU's qga/qapi-schema.json); raises `NotAskedError` where it does not talk.

    `seconds` bounds it as a whole; only so many of them as `sync_seconds` are for the agent to show that it is there.
    """

    def __init__(self, path: str, seconds: float, sync_seconds: float = _SYNC_SECONDS) -> None:
        try:
            self._talk = Conversation(path, min(seconds, sync_seconds))
            try:
                self._synchronise()
            except BaseException:
                self._talk.__exit__(None, None, None)
                raise
        except OSError as problem:
            raise NotAskedError(told(problem)) from None
        self._talk.last(seconds)

    def tell(self, command: str) -> None:
        """Ask for what has no answer; raises `UnansweredError` where nobody knows whether it was heard."""
        try:
            self._talk.say({"execute": command})
        except OSError as problem:
            raise UnansweredError(told(problem)) from None

    def ask(self, command: str) -> object:
        """The answer to one command; raises `UnansweredError`, `RefusalError`."""
        self.tell(command)
        try:
            reply = self._talk.hear()
        except OSError as problem:
            raise UnansweredError(told(problem)) from None
        return answer(reply)

    def count(self, command: str) -> int:
        """The answer to a command that counts something; raises as `ask` does, for an answer of another form too."""
        found = self.ask(command)
        if type(found) is not int or not 0 <= found < _MOST_COUNTED:
            raise UnansweredError("it answered something that is no number of file systems")
        return found

    def frozen(self) -> bool:
        """Whether it says that file systems are frozen, whoever asked for that; raises as `ask` does."""
        found = self.ask("guest-fsfreeze-status")
        if found not in ("frozen", "thawed"):
            raise UnansweredError("it answered something that is no state of file systems")
        return found == "frozen"

    def thaw(self) -> tuple[bool | None, bool]:
        """Thaw; whether it says that file systems were frozen until then (None: it does not say), and are since.

        Raises as `ask` does.
        """
        try:
            before = self.frozen()
        except (UnansweredError, RefusalError):
            before = None
        self.count("guest-fsfreeze-thaw")
        return before, self.frozen()

    def _synchronise(self) -> None:
        # Answers to somebody's earlier commands may still be on their way; the token tells ours apart.
        token = secrets.randbits(31)
        # A byte that no JSON has makes the agent drop what it holds of a broken command; it answers that with an error
        # of its own, so it comes before nothing but the synchronisation, which skips answers.
        self._talk.say({"execute": "guest-sync-delimited", "arguments": {"id": token}}, before=_SENTINEL)
        while True:
            try:
                found = self._talk.hear().get("return")
            except GarbledError:
                continue
            if type(found) is int and found == token:
                return


class Monitor(_Speaker):
    """A conversation with QEMU's monitor (docs/interop/qmp-spec of QEMU), for the few words that the watchdog needs."""

    def __init__(self, path: str, seconds: float) -> None:
        self._talk = Conversation(path, seconds)
        try:
            while "QMP" not in self._talk.hear():
                continue
            self.ask("qmp_capabilities")
        except BaseException:
            self._talk.__exit__(None, None, None)
            raise

    def ask(self, command: str) -> object:
        """The answer to one command, whatever events come before it; raises `OSError`, `RefusalError`."""
        token = secrets.randbits(31)
        self._talk.say({"execute": command, "id": token})
        while (reply := self._talk.hear()).get("id") != token:
            continue
        return answer(reply)

    @property
    def process(self) -> str | None:
        """The name of QEMU's process; see `processes`."""
        return self._talk.process

    def requests(self) -> dict[str, list[int]]:
        """What the guest has asked of its disks until now; see `requests_in`. Raises `OSError`, `RefusalError`."""
        found = self.ask("query-blockstats")
        try:
            return requests_in(found)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise UnansweredError("it answered something that counts no requests") from None

    def resume(self) -> bool:
        """Let the guest's processors run; whether they are still stopped since. Raises `OSError`, `RefusalError`."""
        self.ask("cont")
        found = self.ask("query-status")
        if not isinstance(found, dict) or not isinstance(found.get("status"), str):
            raise UnansweredError("it answered something that is no run state")
        return bool(found["status"] == "paused")


def requests_in(found: Any) -> dict[str, list[int]]:
    """What a guest has asked of its disks, by device, in an answer to query-blockstats; raises as Python does."""
    return {str(one.get("qdev") or one.get("device")): [int(one["stats"][kind]) for kind in _REQUESTS] for one in found}


def has_asked(before: Mapping[str, Sequence[int]], now: Mapping[str, Sequence[int]]) -> bool:
    """Whether a guest has asked for more since, of those disks that it had before and has still."""
    return any(
        count > earlier for disk in before.keys() & now for earlier, count in zip(before[disk], now[disk], strict=True)
    )


def answer(reply: Mapping[str, Any]) -> object:
    """What a reply returns; raises `RefusalError`, `UnansweredError`."""
    if "error" in reply:
        problem = reply["error"]
        words = problem.get("desc") if isinstance(problem, dict) else problem
        # Foreign words: short, and on one line.
        raise RefusalError(ascii(words)[:_MOST_WORDS])
    if "return" not in reply:
        raise UnansweredError("it answered something that is no answer")
    return reply["return"]


def told(problem: OSError) -> str:
    """What went wrong, for a message; without a path."""
    if isinstance(problem, FileNotFoundError | ConnectionRefusedError):
        return "nobody listens on its socket"
    return problem.strerror or str(problem)


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)
