"""An upgrade with operations open in every state: each is held in a call of the release before, until it is let go."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.releases import Release
from tests.storm.crew import Crew, Post
from tests.storm.ledger import Entry, Ledger
from tests.storm.plan import Step, content
from tests.storm.storm import Player, Weather, crew
from tests.storm.world import machines

#: How long a claim holds; several of them are waited out.
LEASE: Final = 2.0
#: The instances whose operations are held, and the call of each that is.
HELD: Final = {
    "restoring": "restore",
    "deleting": "delete",
    "undoing": "delete",
    "completing": "complete",
    "cutting": "cut",
}
METHODS: Final = frozenset(HELD.values())
#: Nothing is planned or goes wrong here but by the test.
NOTHING: Final = Weather(seed=0, board="none", database="", operations=0, instances=0)
#: The janitor goes round all the time, and spares nothing for its youth.
_JANITOR: Final = [("engine", "janitor_interval", 1), ("engine", "janitor_grace", 1)]
#: The drivers by the names that the settings of each release may have for them.
_DRIVERS: Final = [("drivers", "compute", "local"), ("drivers", "storage", "local")]
_PATIENCE: Final = 600.0


@dataclass
class Stage:
    """Instances by what is done with each, and who does it."""

    crew: Crew
    players: dict[str, Player]
    pool: ThreadPoolExecutor
    playing: dict[str, Future[None]] = field(default_factory=dict)

    def begin(self, name: str, step: Step) -> None:
        """Ask for something without waiting for its end."""
        self.playing[name] = self.pool.submit(self.players[name].play, step)

    def set_up(self, name: str) -> None:
        """A snapshot, and other content since."""
        player = self.players[name]
        player.play(Step("create", "s"))
        for disk in ("a", "b"):
            player.play(Step("write", disk=disk, content=content(f"{name}-{disk}-1")))
        assert player.check() == []

    def open_everything(self) -> None:
        """Have an operation of each kind held in its call, one more wait for its turn, and one ended in an error."""
        for done in [self.pool.submit(self.set_up, name) for name in self.players]:
            self.until(done.done, "the first snapshots")
            done.result()
        failed = self.pool.submit(self.players["failed"].play, Step("restore", "s", fails=("a",)))
        self.until(failed.done, "a restore that fails")
        steps = {"restoring": Step("restore", "s"), "deleting": Step("delete", "s"), "undoing": Step("undo", "s")}
        fails = self.crew.marks / "fail-complete"
        for name, method in HELD.items():
            (self.crew.marks / f"hold-{method}").touch()
            if name == "undoing":
                fails.touch()
            before = len(self.held(method))
            self.begin(name, steps.get(name, Step("create", "t")))
            self.until(lambda: len(self.held(method)) > before, f"{name} to be held")  # noqa: B023  # within the loop
            fails.unlink(missing_ok=True)
        self.begin("waiting", Step("create", "t"))
        self.until(lambda: self.shown("waiting", "t"), "one that waits")

    def held(self, *methods: str) -> set[str]:
        """The operations with a call of such a method under way."""
        entries = [entry for entry in self.entries() if entry.method in methods]
        ended = {(one.operation, one.worker, one.method) for one in entries if one.what == "ends"}
        return {one.operation for one in entries if (one.operation, one.worker, one.method) not in ended}

    def entries(self) -> list[Entry]:
        return Ledger(self.crew.ledger).read()

    def shown(self, name: str, snapshot: str) -> bool:
        return snapshot in self.players[name].client.shown()

    def let_go(self) -> None:
        """Hold nothing any more."""
        for method in METHODS:
            (self.crew.marks / f"hold-{method}").unlink()

    def until(self, what: Callable[[], object], why: str) -> None:
        """Wait for something."""
        until = time.monotonic() + _PATIENCE
        while not what():
            self.crew.tend()
            for played in self.playing.values():
                if played.done():
                    played.result()
            assert time.monotonic() < until, f"waited in vain for {why}"
            time.sleep(0.05)

    def leases(self, count: float) -> None:
        """Wait for so many leases to be over."""
        until = time.monotonic() + count * LEASE
        self.until(lambda: time.monotonic() > until, "the time to pass")

    def enlist(self, release: Release) -> None:
        """An API and a worker of a release, or both in one where there is a file, which are up at the end."""
        before = len(self.crew.posts)
        if self.crew.database is None:
            self.crew.enlist(serves=1, release=release)
        else:
            self.crew.enlist(workers=1, apis=1, release=release)
        fresh = self.crew.posts[before:]
        self.until(lambda: all(self.crew.is_up(post) for post in fresh), f"{release.name} to be up")

    def dismiss(self, post: Post, how: signal.Signals) -> None:
        """End a process that nobody takes the place of."""
        post.due = float("inf")
        self.crew.send(post, how)

    def leave(self, *releases: Release) -> None:
        """Have nobody but these releases at work, and asked."""
        others = [post for post in self.crew.posts if post.release not in releases]
        for post in others:
            if signal.SIGKILL not in post.sent:
                post.due = float("inf")
                self.crew.end(post)
        self.until(lambda: not any(post.pid for post in others), "the others to end")
        for post in others:
            post.port = 0

    def workers(self, release: Release) -> list[Post]:
        return [post for post in self.crew.posts if post.role != "api" and post.release == release]

    def goes_round(self) -> None:
        """Wait until a janitor has removed a draft that nobody has touched for long; each release takes it for one."""
        root = next((self.crew.folder / "disks").rglob(".stillframe"))
        draft = root / "left.partial.new"
        draft.mkdir()
        os.utime(draft, (0, 0))
        self.until(lambda: not draft.exists(), "the janitor to go round")

    def all_end(self) -> list[str]:
        """Wait for everything that was begun; whatever is not as it has to be then."""
        for name, played in self.playing.items():
            self.until(played.done, f"{name} to end")
            played.result()
        return [wrong for player in self.players.values() for wrong in player.check()]


@contextmanager
def stage(release: Release, database: str, folder: Path) -> Iterator[Stage]:
    """A release at work: one API and one worker, with as many places as operations are held."""
    more = [("engine", "workers", len(HELD)), *_JANITOR, *_DRIVERS]
    pool = ThreadPoolExecutor(16)
    with crew(folder, database=database, claim_seconds=LEASE, release=release, more=more) as enrolled:
        names = [*HELD, "waiting", "failed"]
        made = machines(folder / "disks", folder / "state", len(names), 1)
        players = {name: Player(NOTHING, machine, enrolled) for name, machine in zip(names, made, strict=True)}
        on_stage = Stage(enrolled, players, pool)
        on_stage.enlist(release)
        try:
            yield on_stage
        finally:
            # Whoever waits for a process that will not come back must not be waited for.
            enrolled.dismiss()
            pool.shutdown(wait=False, cancel_futures=True)
