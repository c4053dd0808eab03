"""Questions that come at a time share a request; this needs no cloud."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from stillframe.domain.errors import NotFound, Unavailable
from stillframe.drivers.openstack.batching import Batching

PATIENCE = 30.0


class Library:
    """Answers with the number of the request that an answer is of; `gate` holds requests up while it is closed."""

    def __init__(self, missing: Sequence[str] = (), *, fails_for_many: bool = False) -> None:
        self.requests: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Semaphore(0)
        self._missing = missing
        self._fails_for_many = fails_for_many

    def one(self, key: str) -> int:
        number = self._request([key])
        if key in self._missing:
            raise NotFound(f"{key} is not here.")
        return number

    def many(self, keys: Sequence[str]) -> Mapping[str, int]:
        number = self._request(list(keys))
        if self._fails_for_many:
            raise Unavailable("one of them is in the way")
        return {key: number for key in keys if key not in self._missing}

    def _request(self, keys: list[str]) -> int:
        self.requests.append(keys)
        number = len(self.requests)
        self.begun.release()
        assert self.gate.wait(PATIENCE)
        return number


@contextmanager
def asking(batching: Batching[int], library: Library, keys: Sequence[str]) -> Iterator[list[Future[list[int]]]]:
    """A first request for `first` is under way while the keys are asked for, each by a thread of its own."""
    with ThreadPoolExecutor(len(keys) + 1) as pool:
        library.gate.clear()
        first = pool.submit(batching.ask, "first")
        assert library.begun.acquire(timeout=PATIENCE)
        started = threading.Barrier(len(keys) + 1)

        def ask(key: str) -> list[int]:
            started.wait(PATIENCE)
            return batching.ask(key)

        asked = [pool.submit(ask, key) for key in keys]
        started.wait(PATIENCE)
        # The threads have nothing to do any more but to ask, and a request waits longer for its turn than this.
        threading.Event().wait(0.2)
        library.gate.set()
        assert first.result(PATIENCE) == [1]
        yield asked


def test_those_who_ask_while_a_request_is_under_way_share_the_next_one() -> None:
    library = Library()
    batching = Batching(library.one, library.many)
    with asking(batching, library, ["a", "b", "c", "b"]) as asked:
        # None of them is answered by the request that had begun before the question.
        assert [one.result(PATIENCE) for one in asked] == [[2]] * 4
    assert library.requests == [["first"], ["a", "b", "c"]]


def test_one_question_for_several_is_one_request_and_keeps_their_order() -> None:
    library = Library()
    batching = Batching(library.one, lambda keys: {key: number for number, key in enumerate(sorted(keys))})
    assert batching.ask("c", "a", "b", "a") == [2, 0, 1, 0]
    assert batching.ask() == []
    assert library.requests == []


def test_what_is_not_there_is_only_his_who_asked_for_it() -> None:
    library = Library(missing=["b"])
    batching = Batching(library.one, library.many)
    with asking(batching, library, ["a", "b"]) as (there, missing):
        assert there.result(PATIENCE) == [2]
        with pytest.raises(NotFound):
            missing.result(PATIENCE)
    with pytest.raises(NotFound):
        batching.ask("b")


def test_each_is_asked_for_alone_where_several_cannot_be_asked_for() -> None:
    library = Library(fails_for_many=True)
    batching = Batching(library.one, library.many)
    with asking(batching, library, ["a", "b"]) as asked:
        assert {one.result(PATIENCE)[0] for one in asked} == {3, 4}
    assert sorted(library.requests[2:]) == [["a"], ["b"]]


def test_a_request_that_hangs_holds_up_only_those_whom_it_answers() -> None:
    library = Library()
    batching = Batching(library.one, lambda keys: dict.fromkeys(keys, 0))
    library.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(batching.ask, "a")
        assert library.begun.acquire(timeout=PATIENCE)
        assert batching.ask("b", "c") == [0, 0]
        assert not hanging.done()
        library.gate.set()
        assert hanging.result(PATIENCE) == [1]
