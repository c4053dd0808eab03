"""One command for all who work on an operation: an array takes few commands a second.

The volumes of an instance are worked on beside each other, by a thread each, which all have the same to ask and to say
at about the same time. So whoever asks waits for the others, as long as these are on their way, and one asks for all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from stillframe.drivers.call import Call

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

#: Threads that are started together come within this of each other; so long nobody goes ahead alone.
_LINGER_SECONDS: Final = 0.25
#: Whoever takes longer, as for a command that hangs, keeps the others no more.
_TIMEOUT_SECONDS: Final = 5.0

_Many = Callable[[Collection[Any]], Mapping[Any, Any]]


@dataclass(slots=True)
class _Question:
    many: _Many
    keys: set[Any] = field(default_factory=set)
    answers: Future[Mapping[Any, Any]] = field(default_factory=Future)


class Crowd:
    """Those who are at one operation at present."""

    def __init__(self, linger_seconds: float) -> None:
        self.members = 0
        self._linger = linger_seconds
        self._changed = threading.Condition()
        self._round: dict[Hashable, _Question] = {}
        self._waiting = 0
        self._joined = self._first = 0.0

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Be one of them; whoever is not waited for must not ask."""
        with self._changed:
            self.members += 1
            self._joined = time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                self.members -= 1
                self._changed.notify_all()

    def ask(self, what: Hashable, key: K, many: Callable[[Collection[K]], Mapping[K, T]]) -> T | None:
        """The answer to a question, or None; asked after this call, with the keys of all who ask the same of them.

        It may be a command as well, which one then gives for all. Raises what `many` raises.
        """
        with self._changed:
            if not self._round:
                self._first = time.monotonic()
            question = self._round.setdefault(what, _Question(many))
            question.keys.add(key)
            self._waiting += 1
            self._changed.notify_all()
            leads = self._await_the_others(what, question)
            asked, self._round = (self._round, {}) if leads else ({}, self._round)
            if leads:
                self._waiting = 0
                self._changed.notify_all()
        for one in asked.values():
            _answer(one)
        return question.answers.result().get(key)

    def _await_the_others(self, what: Hashable, question: _Question) -> bool:
        """Whether to ask for all; otherwise somebody else does."""
        while self._round.get(what) is question:
            now = time.monotonic()
            due = self._first + _TIMEOUT_SECONDS
            if self._waiting >= self.members:
                due = min(due, self._joined + self._linger)
            if now >= due:
                return True
            self._changed.wait(due - now)
        return False


@contextmanager
def alone() -> Iterator[Crowd]:
    """A crowd of one, who waits for nobody."""
    crowd = Crowd(0.0)
    with crowd.joined():
        yield crowd


class Crowds:
    """The crowds of the operations that are worked on; none is kept longer than it has members."""

    def __init__(self, poll_seconds: float) -> None:
        self._linger = min(poll_seconds, _LINGER_SECONDS)
        self._crowds: dict[str, Crowd] = {}
        self._users: dict[str, int] = {}
        self._lock = threading.Lock()

    @contextmanager
    def joined(self, call: Call) -> Iterator[Crowd]:
        """The crowd of an operation, with whoever opens the context in it."""
        key = call.operation_id
        with self._lock:
            crowd = self._crowds.setdefault(key, Crowd(self._linger))
            self._users[key] = self._users.get(key, 0) + 1
        try:
            with crowd.joined():
                yield crowd
        finally:
            with self._lock:
                self._users[key] -= 1
                if not self._users[key]:
                    del self._users[key], self._crowds[key]


def _answer(question: _Question) -> None:
    try:
        question.answers.set_result(question.many(frozenset(question.keys)))
    except BaseException as error:  # noqa: BLE001  # raised by each who has asked
        question.answers.set_exception(error)
