"""Many questions at a time, asked in one request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from stillframe.domain.errors import StillframeError

T = TypeVar("T")

# Threads that are started together ask within less than this; a request takes longer.
_LINGER_SECONDS: Final = 0.002
# A request that takes longer than this holds up nobody but those whom it answers.
_TURN_SECONDS: Final = 1.0


@dataclass
class _Batch(Generic[T]):
    keys: set[str] = field(default_factory=set)
    answers: Future[Mapping[str, T]] = field(default_factory=Future)


class Batching(Generic[T]):
    """Answers questions about single things; those that come while a request is under way share the next one.

    Every answer is of a request that began after its question, so it is as fresh as one of a request of its own. `one`
    asks about one thing; `many` about several, and leaves out what it knows nothing of, which `one` is asked about
    then. So it is where `many` fails, too: one thing's trouble is not that of the others.
    """

    def __init__(self, one: Callable[[str], T], many: Callable[[Sequence[str]], Mapping[str, T]]) -> None:
        self._one = one
        self._many = many
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._next: _Batch[T] = _Batch()

    def ask(self, *keys: str) -> list[T]:
        """An answer a key, in their order; raises what `one` raises."""
        with self._lock:
            batch, leads = self._next, not self._next.keys
            batch.keys.update(keys)
        if leads and keys:
            self._send(batch)
        answers = batch.answers.result() if keys else {}
        return [answers[key] if key in answers else self._one(key) for key in keys]

    def _send(self, batch: _Batch[T]) -> None:
        time.sleep(_LINGER_SECONDS)
        in_turn = self._turn.acquire(timeout=_TURN_SECONDS)
        try:
            with self._lock:
                self._next = _Batch()
            batch.answers.set_result(self._answers(sorted(batch.keys)))
        except BaseException as error:
            batch.answers.set_exception(error)
            raise
        finally:
            if in_turn:
                self._turn.release()

    def _answers(self, keys: Sequence[str]) -> Mapping[str, T]:
        if len(keys) == 1:
            return {keys[0]: self._one(keys[0])}
        try:
            return self._many(keys)
        except StillframeError:
            # Each of those who ask finds out by itself.
            return {}
