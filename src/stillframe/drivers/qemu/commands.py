"""Everything said to QEMU processes and guest agents: one method, one session, one effect."""

from __future__ import annotations

import json
import subprocess
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stillframe.domain.errors import BackendError
from stillframe.drivers.block_jobs import Backup, Below, BlockJob, BlockJobs, Node, Words, is_ours
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.qemu import agent
from stillframe.drivers.qemu.conversation import requests_in
from stillframe.drivers.qemu.monitor import BrokenOffError, Command, HungError, Monitors, NobodyError, NoSuchError
from stillframe.posix import private

# Ends of a job's life in which it does nothing more (qapi/job.json).
_ENDED: Final = frozenset({"concluded", "null"})


#: What a guest has asked of its disks, as QEMU counts it, by device: as long as it is the same, it asked for nothing.
Requests = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Paused:
    """A pause: the run state until then, and what the guest had asked of its disks when its processors had stopped."""

    was: str
    requests: Requests


@dataclass(frozen=True, slots=True)
class Resumed:
    """The end of a pause: whether the processors stood still until then, what was asked, and whether they still do."""

    held: bool
    requests: Requests
    still: bool


class Qemu(BlockJobs):
    """Talks to QEMU's monitor and guest agent; raises `Unavailable` without an answer, `BackendError` for a refusal.

    `timeout` in seconds is for one answer of the monitor, `freeze_timeout` for the freezing of a guest's file systems.
    """

    words = Words(
        silent="no QMP socket of it answers",
        answer="declare qmp_socket, or correct it",
        merge="merge the overlay (block-commit)",
        cancel="cancel it by its monitor (block-job-cancel)",
    )

    def __init__(self, timeout: float = 10.0, freeze_timeout: float = 20.0) -> None:
        self._freeze_timeout = freeze_timeout
        self._monitors = Monitors(timeout)
        self._children: list[subprocess.Popen[bytes]] = []

    # The machine.

    def status(self, socket: Path, seconds: float | None = None) -> str | None:
        """QEMU's run state (qapi/run-state.json), or None if nobody listens on the socket.

        `seconds`: for those who cannot wait as long as a call may take.
        """
        self._collect()
        try:
            (found,) = self._ask(socket, ("query-status", {}), seconds=seconds)
        except NobodyError:
            return None
        return _run_state(found)

    def process(self, socket: Path) -> str | None:
        """The name of the process that listens on the socket (see `processes`), if it can be told."""
        return self._monitors.process(socket)

    def look(self, socket: Path) -> Paused:
        """The present run state, and what the guest has asked of its disks until now."""
        now, counted = self._ask(socket, ("query-status", {}), ("query-blockstats", {}))
        return Paused(_run_state(now), _requests(counted))

    def pause(self, socket: Path, process: str | None = None) -> Paused:
        """Stop the guest's processors, and let QEMU write out what it holds of its images.

        `process`: only those of this one; raises `ReplacedError`.
        """
        before, _, counted = self._monitors.ask(
            socket, ("query-status", {}), ("stop", {}), ("query-blockstats", {}), process=process
        )
        return Paused(_run_state(before), _requests(counted))

    def resume(self, socket: Path, process: str | None = None) -> Resumed:
        """Let the guest's processors run; `process`: only those of this one; raises `ReplacedError`."""
        before, counted, _, after = self._monitors.ask(
            *(socket, ("query-status", {}), ("query-blockstats", {}), ("cont", {}), ("query-status", {})),
            process=process,
        )
        return Resumed(_run_state(before) == "paused", _requests(counted), _run_state(after) == "paused")

    def power_down(self, socket: Path) -> None:
        """Press the guest's power button."""
        self._ask(socket, ("system_powerdown", {}))

    def quit(self, socket: Path) -> None:
        """End the QEMU process at once."""
        # The answer may get lost in the end of the process.
        with suppress(NobodyError, HungError, BrokenOffError):
            self._ask(socket, ("quit", {}))

    def launch(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a program that outlives us, its output appended to `log`; raises `BackendError`."""
        try:
            with open(log, "ab", opener=private.opener) as output:  # pathlib's has no opener
                child = subprocess.Popen(
                    tuple(command),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    start_new_session=True,
                )
        except OSError as problem:
            raise BackendError(
                f"The start_command {command[0]!r} cannot be run, correct it: {problem.strerror}"
            ) from None
        self._children.append(child)
        return child

    # Block nodes and jobs.

    def listens(self, monitor: Path | str) -> bool:
        """See `BlockJobs`."""
        return self.status(Path(monitor)) is not None

    def nodes(self, monitor: Path | str) -> list[Node]:
        """See `BlockJobs`."""
        named, devices = self._ask(monitor, ("query-named-block-nodes", {"flat": True}), ("query-block", {}))
        with _reading("its block nodes"):
            tops = {device["inserted"]["node-name"] for device in devices if device.get("inserted")}
            return [
                Node(one["node-name"], one["drv"], _file(one["file"]), one["node-name"] in tops)
                for one in named
                if one["drv"] in (Format.RAW, Format.QCOW2) or one["node-name"] in tops
            ]

    def add_target(
        self, monitor: Path | str, name: str, descriptors: Sequence[int], form: str, backing: Below | None
    ) -> None:
        """See `BlockJobs`."""
        known_as = _descriptor_set(name)
        options: dict[str, Any] = {
            "driver": form,
            "node-name": name,
            "file": {"driver": "file", "filename": f"/dev/fdset/{known_as}"},
        }
        if form == Format.QCOW2:
            options["backing"] = _below(backing)
        self._forget_descriptors(monitor, name)
        # In one session: at the end of one, QEMU closes what it was given and does not use.
        passing = [("add-fd", {"fdset-id": known_as, "opaque": name}) for _ in descriptors]
        self._monitors.ask(Path(monitor), *passing, ("blockdev-add", options), descriptors=descriptors)

    def remove_target(self, monitor: Path | str, name: str) -> None:
        """See `BlockJobs`."""
        with suppress(NoSuchError):
            self._ask(monitor, ("blockdev-del", {"node-name": name}))
        self._forget_descriptors(monitor, name)

    def start_backups(self, monitor: Path | str, backups: Sequence[Backup]) -> None:
        """See `BlockJobs`."""
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
        self._ask(monitor, ("transaction", {"actions": actions}))

    def job(self, monitor: Path | str, name: str) -> BlockJob | None:
        """See `BlockJobs`."""
        try:
            (jobs,) = self._ask(monitor, ("query-jobs", {}))
        except NobodyError:
            return None
        with _reading("its jobs"):
            for one in jobs:
                if one["id"] == name:
                    ended = one["status"] in _ENDED
                    return BlockJob(ended, one.get("error"), int(one["current-progress"]), int(one["total-progress"]))
        return None

    def foreign_jobs(self, monitor: Path | str) -> list[str]:
        """See `BlockJobs`."""
        (jobs,) = self._ask(monitor, ("query-jobs", {}))
        with _reading("its jobs"):
            going_on = [one for one in jobs if one["status"] not in _ENDED and not is_ours(str(one["id"]))]
            return sorted({str(one["type"]) for one in going_on})

    def cancel_job(self, monitor: Path | str, name: str) -> None:
        """See `BlockJobs`."""
        with suppress(NoSuchError):
            self._ask(monitor, ("block-job-cancel", {"device": name, "force": True}))

    def dismiss_job(self, monitor: Path | str, name: str) -> None:
        """See `BlockJobs`."""
        with suppress(NoSuchError, NobodyError):
            self._ask(monitor, ("job-dismiss", {"id": name}))

    # The guest agent.

    def freeze(self, socket: Path) -> int:
        """See `agent.freeze`."""
        return agent.freeze(socket, self._freeze_timeout)

    def thaw(self, socket: Path, seconds: float) -> tuple[bool | None, bool]:
        """See `agent.thaw`."""
        return agent.thaw(socket, seconds)

    def frozen(self, socket: Path) -> bool:
        """See `agent.frozen`."""
        return agent.frozen(socket)

    def shut_guest_down(self, socket: Path) -> None:
        """See `agent.shut_down`."""
        agent.shut_down(socket)

    def _forget_descriptors(self, monitor: Path | str, name: str) -> None:
        with suppress(NoSuchError):
            self._ask(monitor, ("remove-fd", {"fdset-id": _descriptor_set(name)}))

    def _collect(self) -> None:
        self._children = [child for child in self._children if child.poll() is None]

    def _ask(self, socket: Path | str, *commands: Command, seconds: float | None = None) -> list[Any]:
        return self._monitors.ask(Path(socket), *commands, seconds=seconds)


def _below(found: Below | None) -> Mapping[str, Any] | None:
    if found is None:
        return None
    file = {"driver": "file", "filename": str(found.path)}
    return {"driver": found.format, "file": file, "read-only": True}


def _descriptor_set(name: str) -> int:
    # A number of our own choice, so that it need not be remembered; beyond what QEMU gives out by itself.
    return 0x40000000 | zlib.crc32(name.encode()) >> 2


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Answers that are not of the form that QEMU's schema gives them are an error of whoever speaks there."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
        raise BackendError(
            f"QEMU's monitor told {what} in words that nobody understands; is it QEMU that answers there?"
        ) from None


def _run_state(found: Any) -> str:
    with _reading("its run state"):
        return str(found["status"])


def _requests(found: Any) -> Requests:
    with _reading("what its guest has asked of its disks"):
        return requests_in(found)


def _file(name: str) -> Path:
    if not name.startswith("json:"):
        return Path(name.removeprefix("file:"))
    found: Any = json.loads(name.removeprefix("json:"))
    while isinstance(found, dict) and "filename" not in found:
        found = found.get("file")
    return Path(str(found["filename"])) if isinstance(found, dict) else Path("/dev/null")
