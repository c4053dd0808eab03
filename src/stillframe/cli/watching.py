"""Waiting for the end of an operation, and showing how far it is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import parse_qs, urlsplit

from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.domain.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from stillframe.cli.client import Client, Document

_DONE: Final = 100
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 1.0
_TIMEOUT: Final = 60.0
_NOTED_AFTER: Final = 1.0
_FENCING: Final = "fencing_instance"
_SHUTTING_DOWN: Final = "(a guest that runs is asked to shut down first; if it does not, it is turned off)"
_BUSY: Final = frozenset({"creating", "restoring", "rolling-back", "deleting"})
_MARKS: Final = {"SUCCESS": "[green]✓[/]", "FAILURE": "[red]✗[/]", "REVERTED": "[yellow]↶[/]", "RUNNING": "[cyan]▸[/]"}


class Display(Protocol):
    """Where progress is shown."""

    def show(self, details: Document, note: str = "") -> None: ...

    def note(self, text: str) -> None: ...


def add_wait_option(parser: argparse.ArgumentParser) -> None:
    """`--wait` and `--no-wait`; on a terminal one wants to see the end."""
    parser.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=sys.stdout.isatty(),
        help="Wait for the end of the operation and show its progress (default: on a terminal).",
    )


def wait(client: Client, snapshot_id: str, task_uri: str, title: str) -> Document | None:
    """Wait for the end of a task; the snapshot as it is then, or None if it is gone.

    A failed task is a `CommandFailed`. A service that is restarted meanwhile is waited for.
    """
    try:
        with _display(title) as display:
            ended, details = _follow(client, snapshot_id, task_uri, display)
    except KeyboardInterrupt:
        raise CommandFailed(ExitCode.INTERRUPTED, f"no longer waiting; {_goes_on(task_uri)}") from None
    except CommandFailed as failure:
        raise CommandFailed(failure.code, f"{failure}; {_goes_on(task_uri)}") from None
    if details["progress"] == _DONE:
        return ended
    raise CommandFailed(ExitCode.FAILED, _why(ended))


def _goes_on(task_uri: str) -> str:
    return f"the operation was accepted and goes on; watch it with: stillframe snapshot progress --wait '{task_uri}'"


def _follow(client: Client, snapshot_id: str, task_uri: str, display: Display) -> tuple[Document | None, Document]:
    pause, silent_since, fencing_since = _FIRST_PAUSE, None, None
    while True:
        try:
            # First the snapshot: once it has settled, the progress read after it is final.
            snapshot = _snapshot(client, snapshot_id)
            details = client.progress(task_uri)
        except CommandFailed as failure:
            now = time.monotonic()
            silent_since = silent_since or now
            if failure.code is not ExitCode.UNAVAILABLE or now - silent_since > _TIMEOUT:
                raise
            display.note(f"waiting for the service: {failure}")
        else:
            silent_since = None
            fencing = details["pending_tasks"].get(_FENCING) == "RUNNING"
            fencing_since = (fencing_since or time.monotonic()) if fencing else None
            long = fencing_since is not None and time.monotonic() - fencing_since > _NOTED_AFTER
            display.show(details, _SHUTTING_DOWN if long else "")
            if details["progress"] == _DONE:
                return _snapshot(client, snapshot_id), details
            if _settled(snapshot, task_uri):
                return snapshot, details
        time.sleep(pause)
        pause = min(_LONGEST_PAUSE, pause * 1.5)


def _snapshot(client: Client, snapshot_id: str) -> Document | None:
    try:
        return client.snapshot(snapshot_id)
    except CommandFailed as failure:
        if failure.code is ExitCode.NOT_FOUND:
            return None
        raise


def _settled(snapshot: Document | None, task_uri: str) -> bool:
    """Whether the task no longer holds the snapshot: it has settled, or another task has it by now."""
    if snapshot is None or snapshot["status"] not in _BUSY:
        return True
    return _task_id(snapshot["task_uri"]) != _task_id(task_uri)


def _task_id(task_uri: str | None) -> list[str] | None:
    return parse_qs(urlsplit(task_uri or "").query).get("task_id")


def _why(snapshot: Document | None) -> str:
    if snapshot is None:
        return "the operation failed, and its instance snapshot is gone"
    fault = snapshot.get("fault") or {}
    reason = fault.get("message") or "the operation failed"
    advice = _ADVICE.get(snapshot["status"], "").format(id=snapshot["id"])
    return f"{reason} -- instance snapshot {snapshot['id']} is {snapshot['status']}{advice}"


_ADVICE: Final = {
    "error": "; it holds no data: stillframe snapshot delete {id}",
    "restore-error": "; mend the cause, then: stillframe snapshot retry {id}  (or rollback {id})",
    "rollback-error": "; mend the cause, then: stillframe snapshot rollback {id}",
    "error-deleting": "; mend the cause, then: stillframe snapshot delete {id}",
}


@contextmanager
def _display(title: str) -> Iterator[Display]:
    if not sys.stderr.isatty():
        yield _Lines(title)
        return
    from rich.console import Console  # noqa: PLC0415  # only where there is a terminal
    from rich.live import Live  # noqa: PLC0415

    console = Console(stderr=True)
    with Live(console=console, refresh_per_second=8) as live:
        yield _Bar(title, live)


def _plan(details: Document) -> list[str]:
    """How each volume is put back, where the operation puts volumes back."""
    back = [f"volume {volume} goes back by {way}" for volume, way in sorted(details.get("plan", {}).items())]
    stays = [f"not in the snapshot: {one['volume_id'] or one['kind']}. {one['why']}" for one in _stays(details)]
    return [*back, *stays]


def _stays(details: Document) -> list[Document]:
    found: list[Document] = details.get("not_included") or []
    return found


class _Lines:
    """A line for each change."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._last = ""

    def show(self, details: Document, note: str = "") -> None:
        if not self._last:
            for line in _plan(details):
                self.note(line)
        tasks = ", ".join(f"{name} {state}" for name, state in details["pending_tasks"].items() if state != "PENDING")
        self.note(" ".join(filter(None, (f"{details['progress']:3d} %", tasks, note))))

    def note(self, text: str) -> None:
        if text != self._last:
            self._last = text
            print(printable(f"{self._title}: {text}"), file=sys.stderr, flush=True)  # noqa: T201  # this is what it is for


class _Bar:
    """A bar with the tasks under it, drawn anew in place."""

    def __init__(self, title: str, live: Any) -> None:
        self._title = title
        self._live = live
        self._details: Document = {"progress": 0, "completed_tasks": {}, "pending_tasks": {}}

    def show(self, details: Document, note: str = "") -> None:
        self._details = details
        self._live.update(self._drawn(note))

    def note(self, text: str) -> None:
        self._live.update(self._drawn(text))

    def _drawn(self, note: str) -> RenderableType:
        from rich.console import Group  # noqa: PLC0415
        from rich.markup import escape  # noqa: PLC0415
        from rich.progress_bar import ProgressBar  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415

        percent = self._details["progress"]
        row = Table.grid(padding=(0, 1))
        seconds = self._details.get("estimated_seconds_left")
        left = "" if seconds is None else f"about {seconds} s left"
        row.add_row(
            escape(printable(self._title)), ProgressBar(total=_DONE, completed=percent, width=40), f"{percent} %", left
        )
        tasks = {**self._details["completed_tasks"], **self._details["pending_tasks"]}
        plan = [f"  {escape(printable(line))}" for line in _plan(self._details)]
        lines = [f"  {_MARKS.get(state, '[dim]·[/]')} {escape(printable(name))}" for name, state in tasks.items()]
        return Group(row, *plan, *lines, *([f"[yellow]{escape(printable(note))}[/]"] if note else []))
