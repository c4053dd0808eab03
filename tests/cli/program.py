"""The real program in processes of its own: a service, and the commands that are typed at it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stillframe.drivers.files.images import Images
from stillframe.drivers.image_files.files import Files
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.qemu.declaration import Declaration, Declarations, Disk

if TYPE_CHECKING:
    from collections.abc import Iterator

_INSTALLED: Final = Path(sys.executable).with_name("stillframe")
PROGRAM: Final = [str(_INSTALLED)] if _INSTALLED.exists() else [sys.executable, "-m", "stillframe.cli.main"]
_PATIENCE: Final = 180.0
SIZE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Place:
    """A state folder with its settings, and an environment to type commands in."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.folder / "stillframe.conf"

    def configure(self, **options: str) -> None:
        """Write the settings; `group__option` for options of a group."""
        groups: dict[str, list[str]] = {"DEFAULT": [f"state_dir = {self.folder / 'state'}", "bind_port = 0"]}
        for name, value in options.items():
            group, _, option = name.rpartition("__")
            groups.setdefault(group or "DEFAULT", []).append(f"{option} = {value}")
        self.config.write_text("".join(f"[{group}]\n" + "\n".join(lines) + "\n" for group, lines in groups.items()))

    @property
    def token(self) -> str:
        """The token of the service that has been started here."""
        return (self.folder / "state" / "auth" / "token").read_text().strip()

    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "STILLFRAME_"))}
        return {**clean, "STILLFRAME_CONFIG": str(self.config), "OS_USERNAME": "tester", **self.variables}

    def run(self, *arguments: str, **variables: str) -> Done:
        """Type a command, outside of a terminal."""
        done = subprocess.run(
            [*PROGRAM, *arguments],
            env={**self.environment(), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def good(self, *arguments: str) -> Done:
        """Type a command that has to succeed."""
        done = self.run(*arguments)
        assert done.code == 0, done
        return done

    def at_a_terminal(self, *arguments: str, typed: str = "", columns: int = 120) -> tuple[int, str]:
        """Type a command at a terminal, and answers to what it asks; the exit code, and everything that was shown."""
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, columns))
        os.write(ours, typed.encode())
        process = subprocess.Popen(
            [*PROGRAM, *arguments],
            env={**self.environment(), "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        shown = b""
        # A terminal whose last user is gone ends with an error instead of an empty read.
        with suppress(OSError):
            while chunk := os.read(ours, 4096):
                shown += chunk
        os.close(ours)
        return process.wait(_PATIENCE), shown.decode()

    def disk(self, name: str, content: bytes) -> Path:
        """A raw disk that begins with some content."""
        path = self.folder / "disks" / f"{name}.img"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.ljust(SIZE, b"."))
        return path

    def instance(self, name: str, *, project: str = "default", **disks: bytes) -> Declaration:
        """Declare an instance with raw disks, as `stillframe instance add` does."""
        content = {disk: self.disk(f"{name}-{disk}", inside) for disk, inside in disks.items()}
        declaration = Declaration(
            id=str(uuid.uuid4()),
            name=name,
            project_id=project,
            disks=tuple(Disk(name=disk, path=path, format=Format.RAW) for disk, path in content.items()),
        )
        Declarations(self.folder / "state" / "instances").add(Files(), Images(), declaration)
        return declaration

    def content(self, instance: str, disk: str) -> bytes:
        return (self.folder / "disks" / f"{instance}-{disk}.img").read_bytes().rstrip(b".")

    def statuses(self) -> dict[str, str]:
        """Name and status of every snapshot."""
        listed = self.good("snapshot", "list", "-f", "json").document
        return {one["name"]: one["status"] for one in listed}


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the service; `said` is its one line for people."""

    process: subprocess.Popen[bytes]
    said: str
    log: Path

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(_PATIENCE)


@contextmanager
def started(place: Place, command: str) -> Iterator[Process]:
    """Start `serve`, `api` or `worker`, and end it with the block."""
    log, said = place.folder / f"{command}.log", place.folder / f"{command}.out"
    with log.open("ab") as errors, said.open("wb") as output:
        process = subprocess.Popen([*PROGRAM, command], env=place.environment(), stdout=output, stderr=errors)
    try:
        until = time.monotonic() + _PATIENCE
        while not said.read_text().endswith("\n"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        line = said.read_text().strip()
        if "http://" in line:
            place.variables["STILLFRAME_ENDPOINT"] = next(word for word in line.split() if word.startswith("http"))
        yield Process(process, line, log)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
