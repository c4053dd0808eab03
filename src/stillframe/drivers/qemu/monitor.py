"""Sessions with QEMU's monitors: bounded in time and bytes, with errors of the tree.

A monitor serves one client at a time. Whoever holds it, or speaks in its place, holds up nobody but those who ask it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import tenacity
from qemu.qmp import ConnectError, ExecuteError, QMPClient
from qemu.qmp.qmp_client import GreetingError, NegotiationError

from stillframe.domain.errors import BackendError, StillframeError, Unavailable
from stillframe.drivers.qemu.processes import is_another, listener

# How often a monitor may begin with other words than its greeting.
_GREETINGS: Final = 5
# Beyond this a line is an error of the library's; the longest answer, of all block nodes, grows with a guest's disks.
_MOST_LINE: Final = 4 << 20
_END_SECONDS: Final = 0.5
_AGAIN_SECONDS: Final = 0.05
_MOST_WORDS: Final = 500
_MISSING: Final = ("not found", "Failed to find node", "Cannot find device", "cannot accept command verb")

Command = tuple[str, Mapping[str, Any]]


class NobodyError(Unavailable):
    """Nobody listens on the monitor's socket."""


class HungError(Unavailable):
    """Somebody listens on the monitor's socket and does not answer in time."""


class BrokenOffError(Unavailable):
    """The session ended before the answer; what it was about may have happened."""


class NoSuchError(BackendError):
    """QEMU knows no such job or node, or the job has come to its end meanwhile."""


class ReplacedError(BackendError):
    """Another process than the one that is meant listens on the monitor's socket; it was asked for nothing."""


class _NoGreetingError(Unavailable):
    """Somebody was there, and did not say what a monitor says first."""


class Monitors:
    """Sessions with the monitors of all processes; `seconds` bounds each call as a whole.

    `pause` in seconds is between two tries of one that does not begin with its greeting.
    """

    def __init__(self, seconds: float, pause: float = 0.05) -> None:
        self._seconds = seconds
        self._pause = pause
        self._turns: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)

    def process(self, socket: Path) -> str | None:
        """The name of the process that listens there, if it can be told; raises as `ask` does."""
        return self._hold(socket, _Session(()), None).process

    def ask(
        self,
        socket: Path,
        *commands: Command,
        seconds: float | None = None,
        descriptors: Sequence[int] = (),
        process: str | None = None,
    ) -> list[Any]:
        """The answers to all commands of one session; each `add-fd` among them passes the next of the descriptors.

        `process`: the one that is meant, by its name. Raises `NobodyError`, `HungError`, `BrokenOffError`,
        `NoSuchError`, `ReplacedError`, and `BackendError` for any other refusal.
        """
        return self._hold(socket, _Session(commands, descriptors, process), seconds).answers

    def _hold(self, socket: Path, session: _Session, seconds: float | None) -> _Session:
        limit = self._seconds if seconds is None else min(seconds, self._seconds)
        end = time.monotonic() + limit
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_NoGreetingError),
            stop=tenacity.stop_after_attempt(_GREETINGS) | tenacity.stop_after_delay(limit),
            wait=tenacity.wait_fixed(self._pause),
            reraise=True,
        )
        turn = self._turns[socket]
        if not turn.acquire(timeout=limit):
            raise HungError(f"QEMU's monitor has not answered an earlier call in {limit:g} s.")
        try:
            again(lambda: session.hold(str(socket), end))
        finally:
            turn.release()
        return session


class _Session:
    """One session: what is asked in it, of which process, and then the `answers`, and which `process` gave them."""

    def __init__(
        self, commands: Sequence[Command], descriptors: Sequence[int] = (), process: str | None = None
    ) -> None:
        self._commands = commands
        self._descriptors = descriptors
        self._meant = process
        self.answers: list[Any] = []
        self.process: str | None = None

    def hold(self, path: str, end: float) -> None:
        """Ask everything, until a moment of the monotonic clock.

        Raises as `Monitors.ask` does, and `_NoGreetingError`.
        """
        # Where its disconnect is cut short, the library leaves the socket open until it is collected as garbage, and
        # the monitor would serve nobody else meanwhile.
        with socket.socket(socket.AF_UNIX) as channel:
            channel.setblocking(False)
            asyncio.run(self._talk(channel, path, end))

    async def _talk(self, channel: socket.socket, path: str, end: float) -> None:
        client = QMPClient("stillframe", readbuflen=_MOST_LINE)
        # A machine that is off is no error, and every failure is raised from here in our own words.
        client.logger.setLevel(logging.CRITICAL)
        # Whoever sends events without end must not fill a queue that nobody reads.
        client.events.event_filter = lambda _event: False
        asked, self.answers = "", []
        try:
            async with asyncio.timeout(max(0.0, end - time.monotonic())):
                await self._connect(client, channel, path)
                unsent = iter(self._descriptors)
                for asked, arguments in self._commands:
                    if asked == "add-fd":
                        client.send_fd_scm(next(unsent))
                    self.answers.append(await client.execute(asked, dict(arguments)))
        except TimeoutError:
            what = f"answer {asked}" if asked else "greet"
            raise HungError(f"QEMU's monitor did not {what} in time; is it held by another client?") from None
        except ExecuteError as problem:
            words = ascii(str(problem))[1:-1][:_MOST_WORDS]
            raise (NoSuchError if _is_missing(problem) else BackendError)(f"QEMU refused {asked}: {words}") from None
        except ConnectError as problem:
            raise _unconnected(problem.exc) from None
        except StillframeError:
            raise
        except Exception as problem:  # noqa: BLE001 -- the library raises what it trips over, up to assertions of its own
            if not asked:
                raise _NoGreetingError(f"QEMU's monitor cannot be talked to: {type(problem).__name__}") from None
            raise BrokenOffError(f"QEMU's monitor broke off at {asked}: {type(problem).__name__}") from None
        finally:
            with suppress(Exception):
                async with asyncio.timeout(_END_SECONDS):
                    await client.disconnect()
            # Whoever does not read must not keep us at what we have not sent yet.
            with suppress(OSError):
                channel.shutdown(socket.SHUT_RDWR)

    def _require_meant(self) -> None:
        if is_another(self.process, self._meant):
            raise ReplacedError(
                "The QEMU process that was meant has ended, and another one has taken its place; repeat it."
            )

    async def _connect(self, client: QMPClient, channel: socket.socket, path: str) -> None:
        try:
            await _reach(channel, path)
        except OSError as problem:
            raise _unconnected(problem) from None
        self.process = listener(channel)
        self._require_meant()
        await client.connect(channel)


async def _reach(channel: socket.socket, path: str) -> None:
    """Connect; where too many wait to be let in already, which asyncio takes for a connection, wait as well."""
    while True:
        try:
            channel.connect(path)
        except BlockingIOError:
            await asyncio.sleep(_AGAIN_SECONDS)
        else:
            return


def _unconnected(cause: BaseException) -> Unavailable:
    if isinstance(cause, FileNotFoundError | ConnectionRefusedError):
        return NobodyError("Nobody listens on the socket of QEMU's monitor.")
    if isinstance(cause, GreetingError | NegotiationError):
        # An event for the client before may come first.
        return _NoGreetingError("QEMU's monitor does not begin with its greeting.")
    if isinstance(cause, EOFError | ConnectionResetError | BrokenPipeError):
        # A process that ends closes its connections first: the next try finds nobody there.
        return _NoGreetingError("QEMU's monitor closed the connection at once.")
    why = cause.strerror if isinstance(cause, OSError) and cause.strerror else type(cause).__name__
    return HungError(f"QEMU's monitor cannot be talked to: {why}.")


def _is_missing(problem: ExecuteError) -> bool:
    text = str(problem)
    return problem.error_class == "DeviceNotActive" or any(sign in text for sign in _MISSING)
