"""A worker begins only once what the release before left has been prepared, and nobody is at it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from stillframe.domain.errors import Unavailable
from stillframe.drivers.preparation import Preparation
from stillframe.service.preparing import Preparing


@dataclass
class Platform(Preparation):
    """What it needs to have prepared, who is at it, and what was done, in order."""

    left: bool = True
    busy: bool = False
    silent: int = 0
    done: list[str] = field(default_factory=list)
    begun: threading.Event = field(default_factory=threading.Event)

    def needed(self) -> bool:
        return self.left

    def run(self) -> None:
        self.done.append("prepared")
        self.left = False

    @contextmanager
    def quiet(self) -> Iterator[bool]:
        if self.silent:
            self.silent -= 1
            raise Unavailable("the database does not answer")
        yield not self.busy

    def begin(self) -> None:
        self.done.append("begun")
        self.begun.set()

    def preparing(self, *, alone: bool = False) -> Preparing:
        return Preparing([self], None if alone else self.quiet, [self.begin])


def test_a_worker_begins_at_once_where_nothing_is_left() -> None:
    platform = Platform(left=False, busy=True)
    platform.preparing().start()
    assert platform.done == ["begun"]


def test_a_worker_that_is_alone_prepares_and_begins() -> None:
    platform = Platform(busy=True)
    platform.preparing(alone=True).start()
    assert platform.done == ["prepared", "begun"]


def test_a_worker_waits_for_who_is_at_something() -> None:
    platform = Platform(busy=True)
    platform.preparing().start()
    assert not platform.begun.wait(0.5)
    assert platform.done == []
    platform.busy = False
    assert platform.begun.wait(60)
    assert platform.done == ["prepared", "begun"]


def test_a_database_that_is_silent_is_asked_again() -> None:
    platform = Platform(silent=2)
    platform.preparing().start()
    assert platform.begun.wait(60)
    assert platform.done == ["prepared", "begun"]


def test_a_worker_that_waits_can_be_stopped() -> None:
    platform = Platform(busy=True)
    preparing = platform.preparing()
    preparing.start()
    preparing.stop()
    assert preparing.ended(60)
    platform.busy = False
    assert platform.done == []
