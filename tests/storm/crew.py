"""The processes of a storm: workers, APIs, the database and the job board, and what is done to them."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stillframe.cli.exit_codes import ExitCode
from tests.harness.forks import ForkServer
from tests.lab.boards import free_port
from tests.releases import THIS
from tests.storm.ledger import Ledger

if TYPE_CHECKING:
    from tests.databases import Server
    from tests.lab.boards import BoardServer
    from tests.releases import Release
    from tests.storm.plan import Blow

LOG = logging.getLogger(__name__)

_PATIENCE: Final = 90.0
_ROOT: Final = Path(__file__).parents[2]
# The options that came with them.
_NEEDS_CLAIMS: Final = {("engine", name) for name in ("claim_seconds", "janitor_interval", "janitor_grace")}

Overrides = Sequence[tuple[str | None, str, object]]


@dataclass
class Post:
    """A place in the crew, which one process after another holds; `due`: when the next one is to be there.

    `sent` are the signals that its process was sent to end it.
    """

    role: str
    number: int
    release: Release = THIS
    port: int = 0
    starts: int = 0
    pid: int = 0
    due: float = 0.0
    sent: set[signal.Signals] = field(default_factory=set)

    @property
    def name(self) -> str:
        """That of its present process."""
        return f"{self.role}{self.number}.{self.starts}"


class Nursery(ForkServer):
    """The process that forks those of one release."""

    def __init__(self, release: Release) -> None:
        super().__init__("tests.storm.nursery", "-W", "ignore", environment={"PYTHONPATH": str(release.source)})
        where = Path(self.order("where"))
        assert where.is_relative_to(release.source), f"{release.name} would have been played by {where}"


@dataclass
class Crew:
    """Workers and APIs that are started anew when they have gone, until `dismiss`."""

    folder: Path
    overrides: Overrides
    database: Server | None = None
    board: BoardServer | None = None
    posts: list[Post] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._nurseries: dict[Release, Nursery] = {}
        self._later: list[tuple[float, str, Callable[[], object]]] = []
        self._silent_until = 0.0

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    def written(self) -> int:
        """The length of the ledger."""
        return self.ledger.stat().st_size if self.ledger.exists() else 0

    @property
    def marks(self) -> Path:
        return self.folder / "marks"

    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{post.port}" for post in self.posts if post.port]

    def enlist(self, *, workers: int = 0, apis: int = 0, serves: int = 0, release: Release = THIS) -> None:
        """Have so many more of a release; `serves` are both in one process."""
        self.marks.mkdir(exist_ok=True)
        self._ups.mkdir(exist_ok=True)
        for role, count in (("worker", workers), ("api", apis), ("serve", serves)):
            first = sum(post.role == role for post in self.posts)
            for number in range(first, first + count):
                self.posts.append(Post(role, number, release, 0 if role == "worker" else free_port()))
        self.tend()

    def upgrade(self, release: Release) -> None:
        """Bring the database to a release's schema."""
        reached = self._nursery(release).order("upgrade", overrides=self._overrides(release))
        assert reached == 0, f"the schema of {release.name} was not reached"

    def is_up(self, post: Post) -> bool:
        """Whether its process has said that it does its work."""
        return (self._ups / post.name).exists()

    def tend(self) -> None:
        """Note who has gone, and start, or let go on, whatever is due.

        Always called by the same thread: with it, the servers that it has started end.
        """
        for due, what, act in list(self._later):
            if time.monotonic() >= due:
                self._later.remove((due, what, act))
                act()
        for nursery in self._nurseries.values():
            for pid, code in nursery.order("look"):
                post = next((one for one in self.posts if one.pid == pid), None)
                if post is not None:
                    post.pid = 0
                    self._judge(post, code)
        for post in self.posts:
            if not post.pid and time.monotonic() >= post.due:
                self._start(post)

    def _judge(self, post: Post, code: int) -> None:
        """Note how a process has ended, if it should not have ended so."""
        if code == 0 and signal.SIGTERM in post.sent:
            return
        if code == -signal.SIGKILL and signal.SIGKILL in post.sent:
            return
        # A process that is not up yet has nothing to end in order.
        if code == -signal.SIGTERM and signal.SIGTERM in post.sent and not self.is_up(post):
            return
        post.due = max(post.due, time.monotonic() + 0.5)
        if code == ExitCode.UNAVAILABLE and time.monotonic() < self._silent_until:
            return
        # The server takes a moment to notice that the one before has gone.
        if code == ExitCode.REFUSED and not post.release.claims and not self.is_up(post):
            return
        self.troubles.append(f"{post.name} of {post.release.name} ended by itself: {code}")

    def strike(self, blow: Blow) -> None:
        """Have something go wrong; what is stopped or ended is let go or started again in its time."""
        self._count(f"{blow.kind} {blow.victim}")
        if blow.victim == "database":
            assert self.database is not None
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
            self.end(post)
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
        """Kill all of them; whoever still asks one for something finds none."""
        for post in self.posts:
            self.send(post, signal.SIGKILL)
        self.posts.clear()
        for nursery in self._nurseries.values():
            nursery.close()

    def end(self, post: Post) -> None:
        """Tell a process to end in order; told twice, it would end at once."""
        if signal.SIGTERM not in post.sent:
            self.send(post, signal.SIGTERM)

    def send(self, post: Post, number: signal.Signals) -> None:
        """Send a process a signal, if there is one."""
        if post.pid:
            if number in (signal.SIGTERM, signal.SIGKILL):
                post.sent.add(number)
            with contextlib.suppress(ProcessLookupError):
                os.kill(post.pid, number)

    def _start(self, post: Post) -> None:
        post.starts += 1
        post.sent = set()
        more: Overrides = [(None, "bind_port", post.port)] if post.port else []
        overrides = [*self._overrides(post.release), *more]
        log = self.folder / f"{post.role}{post.number}.log"
        paths = {"ledger": self.ledger, "marks": self.marks, "ups": self._ups, "log": log}
        told = {key: str(path) for key, path in paths.items()}
        post.pid = self._nursery(post.release).order(
            "start", role=post.role, name=post.name, overrides=overrides, **told
        )

    def _nursery(self, release: Release) -> Nursery:
        if release not in self._nurseries:
            self._nurseries[release] = Nursery(release)
        return self._nurseries[release]

    def _overrides(self, release: Release) -> Overrides:
        """Those that a release knows."""
        return [one for one in self.overrides if release.claims or one[:2] not in _NEEDS_CLAIMS]

    @property
    def _ups(self) -> Path:
        return self.folder / "ups"

    def _hit(self, post: Post, blow: Blow) -> None:
        if not post.pid:
            return
        if blow.kind in ("kill", "end"):
            post.due = time.monotonic() + blow.seconds
            if blow.kind == "kill":
                self.send(post, signal.SIGKILL)
            else:
                self.end(post)
            return
        pid, name = post.pid, post.name
        self.send(post, signal.SIGSTOP)
        self._after(blow.seconds, f"process {pid}", lambda: self._go_on(pid, name))

    def _go_on(self, pid: int, name: str) -> None:
        ledger = Ledger(self.ledger)
        ledger.goes_on(name)
        ledger.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def _interrupt(self, server: Server | BoardServer, blow: Blow, how: signal.Signals | None) -> None:
        if any(what == blow.victim for _due, what, _act in self._later):
            return
        if blow.victim == "database":
            # Whoever starts or looks meanwhile finds none, or finds it late.
            self._silent_until = time.monotonic() + blow.seconds + _PATIENCE
        server.stop(how)  # type: ignore[arg-type]  # only a database ends in order by None
        self._after(blow.seconds, blow.victim, server.start)

    def _after(self, seconds: float, what: str, act: Callable[[], object]) -> None:
        self._later.append((time.monotonic() + seconds, what, act))

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
