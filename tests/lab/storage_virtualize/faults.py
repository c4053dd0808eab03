"""What a simulated array can be told to do wrong: at the n-th command of a name from now on, or for a while."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

#: fail: refuse with a CMMVC code. lose: carry out and lose the reply. drop: do nothing and lose the reply.
#: busy: answer 429. expire: answer 403, as if the token had expired. hang: wait, then carry out. break: answer 502.
#: lie: do nothing, and say that it is done. say: do nothing, and answer 200 with `content`, also to `auth`.
#: page: the same with a page of a proxy's. refuse after: carry out, then refuse with a CMMVC code.
WAYS: Final = ("fail", "lose", "drop", "busy", "expire", "hang", "break", "lie", "say", "page", "refuse after")
PAGE: Final = "<!DOCTYPE html><html><body>Please log in.</body></html>"


@dataclass
class Fault:
    """`command` is a pattern such as `startfcmap` or `*`; `nth` counts the matching commands from 1."""

    command: str
    way: str
    nth: int = 1
    times: int = 1
    code: str = "CMMVC5786E"
    seconds: float = 0.0
    subject: str = "*"
    content: str = ""
    seen: int = 0

    def strikes(self, command: str, subject: str) -> bool:
        """Whether this command is one of those; counts it."""
        if not (fnmatchcase(command, self.command) and fnmatchcase(subject, self.subject)):
            return False
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times


@dataclass
class Faults:
    """The faults that are armed, and the commands that came in; `forced` are those that came with -force."""

    armed: list[Fault] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    forced: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _unreachable_until: float = 0.0

    def put(self, command: str, way: str, **details: object) -> Fault:
        """Arm a fault."""
        if way not in WAYS:
            raise ValueError(f"a fault is one of {', '.join(WAYS)}")
        fault = Fault(command, way, **details)  # type: ignore[arg-type]
        if way == "page":
            fault.way, fault.content = "say", PAGE
        with self._lock:
            self.armed.append(fault)
        return fault

    def clear(self) -> None:
        """Disarm everything, and be reachable."""
        with self._lock:
            self.armed.clear()
            self._unreachable_until = 0.0

    def unreachable(self, seconds: float) -> None:
        """Let every connection break off for a while."""
        self._unreachable_until = time.monotonic() + seconds

    @property
    def is_unreachable(self) -> bool:
        return time.monotonic() < self._unreachable_until

    def befalls(self, command: str) -> bool:
        """Whether anything is armed for exactly this command."""
        return any(one.command == command for one in self.armed)

    def next(self, command: str, subject: str, *, force: bool) -> Fault | None:
        """Note a command, and say what befalls it."""
        with self._lock:
            self.commands.append(command)
            if force:
                self.forced.append(command)
            struck = [one for one in self.armed if one.strikes(command, subject)]
            return struck[0] if struck else None
