"""The guests of a storm: machines that run, with agents that now and then refuse, hang, talk nonsense, lie or die."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from tests.conformance.worlds import ask, machine
from tests.lab.hostility import WORDS
from tests.lab.speakers import ScriptedAgent, speaking

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence

    from stillframe.drivers.qemu.declaration import Disk

FREEZE: Final = "guest-fsfreeze-freeze"
THAW: Final = "guest-fsfreeze-thaw"
STATUS: Final = "guest-fsfreeze-status"
#: Seconds that a guest may be held still without anybody being told; the service's own bound, and time to see it.
LONGEST_HOLD: Final = 90.0
_LOOK_EVERY: Final = 0.5
_MOST_MOODS: Final = 3
_MOODY: Final = 0.6
_NONSENSE: Final = tuple(
    WORDS[name] for name in ("an object for a number", "a word for a number", "no JSON", "nothing")
)


@dataclass(frozen=True, slots=True)
class Mood:
    """What a guest does instead of what it is asked for, once, at a command; `seconds` is how long it lasts."""

    what: str = "is well"
    at: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.what} {self.at.removeprefix('guest-fsfreeze-')} {self.seconds:g}".strip()


WELL: Final = Mood()


def moods(rng: random.Random, longest: float) -> list[Mood]:
    """How a guest is at each try to take one snapshot; at the last it is well."""
    found: list[Mood] = []
    while len(found) < _MOST_MOODS and rng.random() < _MOODY:
        what = rng.choice(["refuses", "hangs", "hangs", "hangs", "babbles", "lies", "dies", "is stopped", "is killed"])
        at = rng.choice([FREEZE, THAW, STATUS] if what in ("babbles", "lies") else [FREEZE, THAW])
        found.append(Mood(what, at, round(rng.choice([rng.uniform(0.2, 3.0), longest]), 1)))
    return [*found, WELL]


class MoodyAgent(ScriptedAgent):
    """A scripted agent in a mood.

    `runs` says whether its machine does, and `machine` sends that a signal, and lets it go on after so many seconds.
    """

    def __init__(self, runs: Callable[[], bool], machine: Callable[[signal.Signals, float], None]) -> None:
        super().__init__()
        self.mood = WELL
        self._runs = runs
        self._machine = machine
        self._gone_until = 0.0

    def part(self, connection: socket.socket) -> None:
        """See `speaking`."""
        if time.monotonic() >= self._gone_until and self._runs():
            super().part(connection)

    def _answer(self, message: dict[str, Any]) -> bytes:
        mood, command = self.mood, message["execute"]
        if command == "guest-shutdown":
            self._machine(signal.SIGKILL, 0.0)
            return b""
        if command != mood.at:
            return super()._answer(message)
        self.mood = WELL
        if mood.what == "refuses":
            return b'{"error": {"class": "GenericError", "desc": "not now"}}\n'
        if mood.what == "hangs":
            # It does what it was asked for when it has come to itself, whoever has given it up meanwhile.
            time.sleep(mood.seconds)
        if mood.what == "babbles":
            return random.choice(_NONSENSE)
        if mood.what == "lies":
            return b'{"return": "frozen"}\n' if command == STATUS else b'{"return": 0}\n'
        answer = super()._answer(message)
        if mood.what == "dies":
            self._gone_until = time.monotonic() + mood.seconds
            raise ConnectionAbortedError
        if mood.what == "is stopped":
            self._machine(signal.SIGSTOP, mood.seconds)
        if mood.what == "is killed":
            self._machine(signal.SIGKILL, 0.0)
        return answer


class Guest:
    """One machine that runs; `declared` are the keys of its declaration. Nobody but its player starts it anew."""

    def __init__(self, sockets: Path, name: str, disks: Sequence[Disk]) -> None:
        self.monitor, self.talk = sockets / f"{name}.qmp", sockets / f"{name}.agent"
        self.command = machine(self.monitor, disks)
        self.agent = MoodyAgent(lambda: self.pid is not None, self._signal)
        self.starts = 0
        self._children: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()

    @property
    def declared(self) -> dict[str, Any]:
        return {
            "qmp_socket": self.monitor,
            "guest_agent_socket": self.talk,
            "start_command": self.command,
        }

    @property
    def pid(self) -> int | None:
        """That of its process, whoever has started it."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if f"unix:{self.monitor},server=on,wait=off".encode() in path.read_bytes().split(b"\0"):
                    return int(path.parent.name)
        return None

    def start(self) -> None:
        """Start it, if it is off."""
        if self.pid is None:
            self.agent.frozen = False
            self.starts += 1
            with Path(os.devnull).open("wb") as nowhere:
                started = subprocess.Popen(self.command, start_new_session=True, stdout=nowhere, stderr=nowhere)
            self._children.append(started)
            _until(lambda: self.state() == "running", f"{self.command} to run")

    def write(self, disk: str, data: bytes) -> bool:
        """Write as the guest does, through its device; False if it is off."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            device = f"/machine/peripheral/{disk}-device/virtio-backend"
            order = f'qemu-io -d {device} "write -s {file.name} 0 {len(data)}"'
            try:
                said = self._ask("human-monitor-command", {"command-line": order})
            except OSError:
                return False
        assert not said, said
        return True

    def state(self) -> str | None:
        """Its run state as QEMU itself tells it; None where nobody tells."""
        try:
            return str(self._ask("query-status")["status"])
        except (OSError, ValueError):
            return None

    def held(self) -> str | None:
        """By what it is held still; None for one that is free, or that is off or stopped altogether."""
        state = self.state()
        if state is None:
            # What is off and comes back is thawed.
            self.agent.frozen = self.agent.frozen and self.pid is not None
            return None
        return "paused" if state == "paused" else "frozen" if self.agent.frozen else None

    def end(self) -> None:
        self._signal(signal.SIGKILL, 0.0)
        for child in self._children:
            child.wait(60)

    def _ask(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        with self._lock:
            return ask(self.monitor.with_suffix(".second"), command, arguments)

    def _signal(self, number: signal.Signals, seconds: float) -> None:
        pid = self.pid
        if pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        if number is signal.SIGKILL:
            # Whatever froze in it is gone with it.
            self.agent.frozen = False
            for child in self._children:
                child.poll()
            return
        threading.Timer(seconds, _go_on, (pid,)).start()


@contextmanager
def guests(names: Sequence[str], disks: Callable[[str], Sequence[Disk]]) -> Iterator[dict[str, Guest]]:
    """Guests by the names of their machines, whose agents can be talked to as long as the context lasts."""
    # Socket paths are short by law of the kernel.
    with tempfile.TemporaryDirectory(prefix="sf-") as folder, ExitStack() as stack:
        made = {name: Guest(Path(folder), name, disks(name)) for name in names}
        for guest in made.values():
            stack.enter_context(speaking(guest.talk, guest.agent.part))
            stack.callback(guest.end)
        yield made


class Watch:
    """Looks at guests all the time: who is held still longer than may be has to be told of.

    `told` says of a name whether somebody is; `wrong` has what was not, and `longest` the longest hold in seconds.
    """

    def __init__(self, guests: dict[str, Guest], told: Callable[[str], bool]) -> None:
        self.wrong: list[str] = []
        self.longest = 0.0
        self._guests = guests
        self._told = told
        self._since: dict[str, float] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(_LOOK_EVERY):
            for name, guest in self._guests.items():
                self._look(name, guest)

    def _look(self, name: str, guest: Guest) -> None:
        held = guest.held()
        if held is None:
            self._since.pop(name, None)
            return
        lasted = time.monotonic() - self._since.setdefault(name, time.monotonic())
        self.longest = max(self.longest, lasted)
        if lasted > LONGEST_HOLD and not self._told(name):
            self.wrong.append(f"{name} has been {held} for {lasted:.0f} s, and nobody is told")
            self._since.pop(name)


def _go_on(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def _until(reached: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < until, f"waited for {what} in vain"
        time.sleep(0.1)
