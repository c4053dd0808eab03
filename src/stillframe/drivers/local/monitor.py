"""The border to QEMU's monitors: sessions that are bounded in time and bytes, and errors of the tree.

A monitor serves one client at a time. Whoever holds it, or speaks in its place, holds up nobody but those who ask it.
"""

from __future__ import annotations

import asyncio
import logging
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

from stillframe.domain.errors import BackendError, Unavailable

# How often a monitor may begin with other words than its greeting.
_GREETINGS: Final = 5
# Beyond this a line is an error of the library's; the longest answer, of all block nodes, grows with a guest's disks.
_MOST_LINE: Final = 4 << 20
_END_SECONDS: Final = 0.5
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

    def ask(
        self, socket: Path, *commands: Command, seconds: float | None = None, descriptors: Sequence[int] = ()
    ) -> list[Any]:
        """The answers to all commands of one session; each `add-fd` among them passes the next of the descriptors.

        Raises `NobodyError`, `HungError`, `BrokenOffError`, `NoSuchError`, and `BackendError` for any other refusal.
        """
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
            return again(lambda: asyncio.run(_session(str(socket), commands, end, descriptors)))
        finally:
            turn.release()


async def _session(socket: str, commands: Sequence[Command], end: float, descriptors: Sequence[int]) -> list[Any]:
    client = QMPClient("stillframe", readbuflen=_MOST_LINE)
    # A machine that is off is no error, and every failure is raised from here in our own words.
    client.logger.setLevel(logging.CRITICAL)
    # Whoever sends events without end must not fill a queue that nobody reads.
    client.events.event_filter = lambda _event: False
    asked, answers, unsent = "", list[Any](), iter(descriptors)
    try:
        async with asyncio.timeout(max(0.0, end - time.monotonic())):
            await client.connect(socket)
            for asked, arguments in commands:
                if asked == "add-fd":
                    client.send_fd_scm(next(unsent))
                answers.append(await client.execute(asked, dict(arguments)))
            return answers
    except TimeoutError:
        what = f"answer {asked}" if asked else "greet"
        raise HungError(f"QEMU's monitor did not {what} in time; is it held by another client?") from None
    except ExecuteError as problem:
        words = ascii(str(problem))[1:-1][:_MOST_WORDS]
        raise (NoSuchError if _is_missing(problem) else BackendError)(f"QEMU refused {asked}: {words}") from None
    except ConnectError as problem:
        raise _unconnected(problem) from None
    except Exception as problem:  # noqa: BLE001 -- the library raises what it trips over, up to assertions of its own
        if not asked:
            raise _NoGreetingError(f"QEMU's monitor cannot be talked to: {type(problem).__name__}") from None
        raise BrokenOffError(f"QEMU's monitor broke off at {asked}: {type(problem).__name__}") from None
    finally:
        with suppress(Exception):
            async with asyncio.timeout(_END_SECONDS):
                await client.disconnect()


def _unconnected(problem: ConnectError) -> Unavailable:
    cause = problem.exc
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
