"""Everything said to QEMU processes and guest agents: one method, one session, one effect."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tenacity
from qemu.qmp import ConnectError, ExecInterruptedError, ExecuteError, QMPClient, QMPError
from qemu.qmp.qmp_client import GreetingError, NegotiationError

from stillframe.domain.errors import BackendError, Unavailable
from stillframe.drivers.local import agent
from stillframe.drivers.local.images import Format

# How often a monitor may begin with other words than its greeting.
_GREETINGS: Final = 5
# Ends of a job's life in which it does nothing more (qapi/job.json).
_ENDED: Final = frozenset({"concluded", "null"})


@dataclass(frozen=True, slots=True)
class Node:
    """A block node of a QEMU process: the format layer of one image; `top` if a device sits on it."""

    name: str
    driver: str
    file: Path
    top: bool


@dataclass(frozen=True, slots=True)
class Job:
    """A background job of a QEMU process; `done` and `total` are bytes, `ended` says that it does nothing more."""

    ended: bool
    error: str | None
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Backup:
    """One blockdev-backup: its job id, which is its target node's name too, and where it reads."""

    job: str
    source_node: str
    sync: str


class Qemu:
    """Talks to QEMU's monitor and guest agent; raises `Unavailable` without an answer, `BackendError` for a refusal.

    `timeout` in seconds is for one answer of the monitor, `freeze_timeout` for the freezing of a guest's file systems.
    """

    def __init__(self, timeout: float = 10.0, freeze_timeout: float = 20.0) -> None:
        self._timeout = timeout
        self._freeze_timeout = freeze_timeout
        # The monitor serves one client at a time.
        self._locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)
        self._children: list[subprocess.Popen[bytes]] = []

    # The machine.

    def status(self, socket: Path) -> str | None:
        """QEMU's run state (qapi/run-state.json), or None if nobody listens on the socket."""
        self._collect()
        try:
            (found,) = self._ask(socket, ("query-status", {}))
        except _NobodyError:
            return None
        return str(found["status"])

    def pause(self, socket: Path) -> None:
        """Stop the guest's processors; QEMU writes out what it holds of its images."""
        self._ask(socket, ("stop", {}))

    def resume(self, socket: Path) -> str:
        """Let the guest's processors run; returns the run state until then."""
        before, _ = self._ask(socket, ("query-status", {}), ("cont", {}))
        return str(before["status"])

    def power_down(self, socket: Path) -> None:
        """Press the guest's power button."""
        self._ask(socket, ("system_powerdown", {}))

    def quit(self, socket: Path) -> None:
        """End the QEMU process at once."""
        # The answer may get lost in the end of the process.
        with suppress(_NobodyError, _HungError):
            self._ask(socket, ("quit", {}))

    def launch(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a program that outlives us, its output appended to `log`; raises `BackendError`."""
        try:
            with log.open("ab") as output:
                child = subprocess.Popen(
                    tuple(command),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    start_new_session=True,
                )
        except OSError as problem:
            raise BackendError(f"cannot start {command[0]}: {problem.strerror}") from None
        self._children.append(child)
        return child

    # Block nodes and jobs.

    def nodes(self, socket: Path) -> list[Node]:
        """The format nodes of all images that the process has open."""
        named, devices = self._ask(socket, ("query-named-block-nodes", {"flat": True}), ("query-block", {}))
        tops = {device["inserted"]["node-name"] for device in devices if device.get("inserted")}
        return [
            Node(one["node-name"], one["drv"], _file(one["file"]), one["node-name"] in tops)
            for one in named
            if one["drv"] in (Format.RAW, Format.QCOW2) or one["node-name"] in tops
        ]

    def add_target(self, socket: Path, name: str, file: Path, form: Format, backing: Mapping[str, Any] | None) -> None:
        """Open a copy's file in the process as a node with this name."""
        options: dict[str, Any] = {
            "driver": form.value,
            "node-name": name,
            "file": {"driver": "file", "filename": str(file)},
        }
        if form is Format.QCOW2:
            options["backing"] = backing
        self._ask(socket, ("blockdev-add", options))

    def remove_target(self, socket: Path, name: str) -> None:
        """Close the node; one that is gone already is fine."""
        with suppress(_NoSuchError):
            self._ask(socket, ("blockdev-del", {"node-name": name}))

    def start_backups(self, socket: Path, backups: Sequence[Backup]) -> None:
        """Start all jobs at one instant, or none: whatever the guest writes from then on is not in the copies."""
        actions = [
            {
                "type": "blockdev-backup",
                "data": {
                    "job-id": one.job,
                    "device": one.source_node,
                    "target": one.job,
                    "sync": one.sync,
                    "auto-dismiss": False,
                },
            }
            for one in backups
        ]
        self._ask(socket, ("transaction", {"actions": actions}))

    def job(self, socket: Path, name: str) -> Job | None:
        """How far a job is, or None if the process knows none of this name or is gone."""
        try:
            (jobs,) = self._ask(socket, ("query-jobs", {}))
        except _NobodyError:
            return None
        for one in jobs:
            if one["id"] == name:
                ended = one["status"] in _ENDED
                return Job(ended, one.get("error"), int(one["current-progress"]), int(one["total-progress"]))
        return None

    def foreign_jobs(self, socket: Path) -> list[str]:
        """The kinds of jobs, such as `mirror`, that go on in the process and that nobody here began."""
        (jobs,) = self._ask(socket, ("query-jobs", {}))
        return sorted({str(one["type"]) for one in jobs if one["status"] not in _ENDED and not is_ours(str(one["id"]))})

    def cancel_job(self, socket: Path, name: str) -> None:
        """Have a job end soon; one that has ended or is gone already is fine."""
        with suppress(_NoSuchError):
            self._ask(socket, ("block-job-cancel", {"device": name, "force": True}))

    def dismiss_job(self, socket: Path, name: str) -> None:
        """Have an ended job forgotten; one that is gone already is fine."""
        with suppress(_NoSuchError, _NobodyError):
            self._ask(socket, ("job-dismiss", {"id": name}))

    # The guest agent.

    def freeze(self, socket: Path) -> int:
        """Freeze the guest's file systems; returns how many. Raises `Unavailable`, `BackendError`."""
        return int(agent.ask(socket, "guest-fsfreeze-freeze", self._freeze_timeout) or 0)

    def thaw(self, socket: Path) -> int:
        """Thaw the guest's file systems; returns how many were frozen. Raises `Unavailable`, `BackendError`."""
        return int(agent.ask(socket, "guest-fsfreeze-thaw", self._freeze_timeout) or 0)

    def shut_guest_down(self, socket: Path) -> None:
        """Ask the guest agent to shut the guest down, which has no answer; raises `Unavailable`."""
        agent.tell(socket, "guest-shutdown")

    def _collect(self) -> None:
        self._children = [child for child in self._children if child.poll() is None]

    def _ask(self, socket: Path, *commands: tuple[str, Mapping[str, Any]]) -> list[Any]:
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_GarbledError),
            stop=tenacity.stop_after_attempt(_GREETINGS),
            wait=tenacity.wait_fixed(0.05),
            reraise=True,
        )
        with self._locks[socket]:
            return again(lambda: asyncio.run(self._session(socket, commands)))

    async def _session(self, socket: Path, commands: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Any]:
        client = QMPClient("stillframe")
        # A machine that is off is no error, and every failure is raised from here in our own words.
        client.logger.setLevel(logging.CRITICAL)
        command = "the greeting"
        try:
            async with asyncio.timeout(self._timeout):
                await client.connect(str(socket))
                answers = []
                for command, arguments in commands:
                    answers.append(await client.execute(command, dict(arguments)))
                return answers
        except ExecuteError as problem:
            kind = _NoSuchError if _is_missing(problem) else BackendError
            raise kind(f"QEMU refused {command}: {problem}") from None
        except TimeoutError:
            raise _HungError(
                f"QEMU on {socket} did not answer {command} in {self._timeout:g} s; is its monitor held by "
                "another client?"
            ) from None
        except ConnectError as problem:
            # An event for the client before may come first; of somebody who talks nobody may say that they are off.
            garbled = isinstance(problem.exc, GreetingError | NegotiationError)
            talk: type[Unavailable] = _GarbledError if garbled else _NobodyError
            raise talk(f"QEMU on {socket} cannot be reached for {command}: {problem}") from None
        # The library asserts that it is still connected right after connecting, which a process that ends may undo.
        except (ExecInterruptedError, QMPError, OSError, EOFError, AssertionError) as problem:
            raise _NobodyError(f"QEMU on {socket} cannot be reached for {command}: {problem}") from None
        finally:
            with suppress(Exception):
                async with asyncio.timeout(1):
                    await client.disconnect()


def is_ours(job: str) -> bool:
    """Whether a job or node has such a name as `Copy.job` gives."""
    return re.fullmatch("sf[0-9a-f]{28}", job) is not None


class _NobodyError(Unavailable):
    """Nobody listens on the monitor's socket, or the process ended meanwhile."""


class _GarbledError(Unavailable):
    """Somebody listens on the monitor's socket and does not say what a monitor says first."""


class _HungError(Unavailable):
    """Somebody listens on the monitor's socket and says nothing."""


class _NoSuchError(BackendError):
    """QEMU knows no such job or node, or the job has come to its end meanwhile."""


def _is_missing(problem: ExecuteError) -> bool:
    text = str(problem)
    return problem.error_class == "DeviceNotActive" or any(
        sign in text
        for sign in ("not found", "Failed to find node", "Cannot find device", "cannot accept command verb")
    )


def _file(name: str) -> Path:
    if not name.startswith("json:"):
        return Path(name.removeprefix("file:"))
    found: Any = json.loads(name.removeprefix("json:"))
    while isinstance(found, dict) and "filename" not in found:
        found = found.get("file")
    return Path(str(found["filename"])) if isinstance(found, dict) else Path("/dev/null")
