"""The processes of a storm: workers, APIs, the database and the job board, and what is done to them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.lab.boards import free_port
from tests.storm.nursery import NO_DATABASE

if TYPE_CHECKING:
    from tests.databases import Server
    from tests.lab.boards import BoardServer
    from tests.storm.plan import Blow

LOG = logging.getLogger(__name__)

_PATIENCE: Final = 90.0

Overrides = list[tuple[str | None, str, object]]


@dataclass
class Post:
    """A place in the crew, which one process after another holds; `due`: when the next one is to be there."""

    role: str
    number: int
    port: int = 0
    starts: int = 0
    pid: int = 0
    due: float = 0.0
    struck: bool = False


@dataclass
class Crew:
    """Workers and APIs that are started anew when they have gone, until `dismiss`."""

    folder: Path
    overrides: Overrides
    database: Server
    board: BoardServer | None
    posts: list[Post] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._nursery = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.storm.nursery"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._later: list[tuple[float, str, Callable[[], object]]] = []

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    @property
    def marks(self) -> Path:
        return self.folder / "marks"

    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{post.port}" for post in self.posts if post.role == "api"]

    def enlist(self, *, workers: int, apis: int) -> None:
        self.marks.mkdir(exist_ok=True)
        self.posts += [Post("worker", number) for number in range(workers)]
        self.posts += [Post("api", number, free_port()) for number in range(apis)]
        self.tend()

    def tend(self) -> None:
        """Note who has gone, and start, or let go on, whatever is due.

        Always called by the same thread: with it, the servers that it has started end.
        """
        for due, what, act in list(self._later):
            if time.monotonic() >= due:
                self._later.remove((due, what, act))
                act()
        for pid, code in self._order({"do": "look"}):
            post = next((one for one in self.posts if one.pid == pid), None)
            if post is None:
                continue
            post.pid = 0
            expected = {-signal.SIGKILL, 0} if post.struck else {NO_DATABASE}
            if code not in expected:
                self.troubles.append(f"{post.role} {post.number} ended by itself: {code}")
            if code == NO_DATABASE:
                post.due = time.monotonic() + 0.5
        for post in self.posts:
            if not post.pid and time.monotonic() >= post.due:
                self._start(post)

    def strike(self, blow: Blow) -> None:
        """Have something go wrong; what is stopped or ended is let go or started again in its time."""
        self._count(f"{blow.kind} {blow.victim}")
        if blow.victim == "database":
            self._interrupt(self.database, blow, signal.SIGKILL if blow.kind == "kill" else None)
        elif blow.victim == "board":
            if self.board is not None:
                self._interrupt(self.board, blow, signal.SIGKILL if blow.kind == "kill" else signal.SIGTERM)
        else:
            self._hit([one for one in self.posts if one.role == blow.victim][blow.number], blow)

    def calm(self) -> None:
        """Wait until nothing is stopped or down any more."""
        while self._later or not all(post.pid for post in self.posts):
            self.tend()
            time.sleep(0.05)

    def relieve(self, role: str) -> None:
        """End all of a role in order and start others; they have to end soon, and well."""
        posts = [post for post in self.posts if post.role == role]
        for post in posts:
            post.due = float("inf")
            post.struck = True
            self._signal(post, signal.SIGTERM)
        until = time.monotonic() + _PATIENCE
        while any(post.pid for post in posts):
            self.tend()
            if time.monotonic() > until:
                raise TimeoutError(f"SIGTERM did not end a {role}")
            time.sleep(0.05)
        for post in posts:
            post.due = 0.0
        self.tend()

    def dismiss(self) -> None:
        """Kill all of them."""
        for post in self.posts:
            self._signal(post, signal.SIGKILL)
        assert self._nursery.stdin is not None
        self._nursery.stdin.close()
        self._nursery.wait(_PATIENCE)

    def _start(self, post: Post) -> None:
        post.starts += 1
        post.struck = False
        name = f"{post.role}{post.number}.{post.starts}"
        more: Overrides = [(None, "bind_port", post.port)] if post.role == "api" else []
        order = {"role": post.role, "name": name, "overrides": [*self.overrides, *more]}
        paths = {"ledger": self.ledger, "marks": self.marks, "log": self.folder / f"{post.role}{post.number}.log"}
        post.pid = self._order({"do": "start", **order, **{key: str(path) for key, path in paths.items()}})

    def _hit(self, post: Post, blow: Blow) -> None:
        if not post.pid:
            return
        if blow.kind in ("kill", "end"):
            post.struck, post.due = True, time.monotonic() + blow.seconds
            self._signal(post, signal.SIGKILL if blow.kind == "kill" else signal.SIGTERM)
            return
        pid = post.pid
        self._signal(post, signal.SIGSTOP)
        self._after(blow.seconds, f"process {pid}", lambda: _go_on(pid))

    def _interrupt(self, server: Server | BoardServer, blow: Blow, how: signal.Signals | None) -> None:
        if any(what == blow.victim for _due, what, _act in self._later):
            return
        server.stop(how)  # type: ignore[arg-type]  # only a database ends in order by None
        self._after(blow.seconds, blow.victim, server.start)

    def _after(self, seconds: float, what: str, act: Callable[[], object]) -> None:
        self._later.append((time.monotonic() + seconds, what, act))

    def _signal(self, post: Post, number: signal.Signals) -> None:
        if post.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(post.pid, number)

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def _order(self, order: dict[str, Any]) -> Any:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(json.dumps(order) + "\n")
        self._nursery.stdin.flush()
        return json.loads(self._nursery.stdout.readline())


def _go_on(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
