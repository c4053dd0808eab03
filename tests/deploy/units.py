"""A machine's units: those that we hand out and servers of Debian's, run as their files say, and systemctl for a shell.

There is no systemd where the tests run. What it would do at each command is little: start a unit's command in its
environment, or end it.
"""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from tests.deploy.serving import DEPLOY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_PATIENCE: Final = 120.0
_COMMANDS: Final = ("systemctl", "journalctl", "timedatectl")
_SHIM: Final = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect({path!r})
    line.sendall(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]).encode())
    line.shutdown(socket.SHUT_WR)
    code, said = json.loads(b"".join(iter(lambda: line.recv(65536), b"")))
sys.stdout.write(said)
sys.exit(code)
"""


class Startable(Protocol):
    """Something that runs or does not."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


@dataclass
class Unit:
    """A command in an environment, with the log of all its runs."""

    command: Sequence[str]
    variables: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        if not self.runs:
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(self.command, env=dict(self.variables), stdout=log, stderr=log)

    def stop(self) -> None:
        self._end(subprocess.Popen.terminate)

    def kill(self) -> None:
        """As the kernel does it that is out of memory, and so often that systemd does not start it anew."""
        self._end(subprocess.Popen.kill)

    def _end(self, how: Callable[[subprocess.Popen[bytes]], None]) -> None:
        if self.process is None:
            return
        how(self.process)
        try:
            self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def shipped(name: str, folder: Path, variables: Mapping[str, str]) -> Unit:
    """A unit of deploy/systemd, with the program where it is here, and more variables; `name` may have an instance."""
    template, _, instance = name.partition("@")
    text = (DEPLOY / "systemd" / f"{template}{'@' if instance else ''}.service").read_text().replace("%i", instance)
    text = text.replace("/opt/stillframe/bin/", f"{Path(sys.executable).parent}/")
    text = text.replace("/etc/stillframe/gunicorn.conf.py", str(DEPLOY / "gunicorn.conf.py"))
    (command,) = re.findall(r"^ExecStart=(.+)$", text, re.MULTILINE)
    set_by_unit = dict(line.split("=", 1) for line in re.findall(r"^Environment=(.+)$", text, re.MULTILINE))
    return Unit(shlex.split(command), {**set_by_unit, **variables}, folder / f"{name}.log")


class Systemd:
    """The units of a machine by name; `set_clock` is what an NTP client would do."""

    def __init__(self, set_clock: Callable[[], None]) -> None:
        self.units: dict[str, Unit | Startable] = {}
        self._set_clock = set_clock

    @contextmanager
    def typed_in(self, folder: Path) -> Iterator[None]:
        """Put systemctl and its like into a folder for as long as they are needed."""
        path = folder / "systemd.sock"
        for name in _COMMANDS:
            shim = folder / name
            shim.write_text(_SHIM.format(python=sys.executable, path=str(path)))
            shim.chmod(0o755)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()
            thread = threading.Thread(target=self._serve, args=(listening,), daemon=True)
            thread.start()
            try:
                yield
            finally:
                listening.shutdown(socket.SHUT_RDWR)
                thread.join(_PATIENCE)

    def _serve(self, listening: socket.socket) -> None:
        while True:
            try:
                line, _ = listening.accept()
            except OSError:
                return
            with line, line.makefile("rb") as said:
                typed = json.loads(said.read())
                line.sendall(json.dumps(self._do(*typed)).encode())

    def _do(self, command: str, *arguments: str) -> tuple[int, str]:
        if command == "timedatectl":
            if arguments == ("set-ntp", "true"):
                self._set_clock()
            return 0, time.ctime() + "\n"
        if command == "journalctl":
            return 0, self._journal(arguments)
        verb, *names = arguments
        unknown = [name for name in names if name not in self.units]
        if unknown:
            return 5, f"Unit {unknown[0]}.service not found.\n"
        if verb == "status":
            states = [(name, getattr(self.units[name], "runs", None)) for name in names]
            return 0 if all(runs for _, runs in states) else 3, "".join(f"{name}: {runs}\n" for name, runs in states)
        for name in names:
            if verb in ("stop", "restart"):
                self.units[name].stop()
            if verb in ("start", "restart"):
                self.units[name].start()
        return (0, "") if verb in ("start", "stop", "restart") else (1, f"Unknown command verb {verb}.\n")

    def _journal(self, arguments: Sequence[str]) -> str:
        wanted = [arguments[at + 1] for at, one in enumerate(arguments) if one == "-u"]
        logs = [
            unit.log
            for name, unit in self.units.items()
            if isinstance(unit, Unit) and any(fnmatch.fnmatch(name, pattern) for pattern in wanted)
        ]
        return "".join(log.read_text() for log in logs if log.exists())[-20000:]
