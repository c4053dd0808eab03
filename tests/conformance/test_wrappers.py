"""Policies around drivers: every method of a port goes through once, under the part of the policy that it is for."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from stillframe.domain.errors import BackendError, Superseded, Unavailable
from stillframe.drivers.call import Call
from stillframe.drivers.compute import ComputeDriver
from stillframe.drivers.flashcopy import FlashCopy
from stillframe.drivers.storage import StorageDriver
from stillframe.drivers.visibility import Visibility
from stillframe.drivers.wrappers import (
    CheckPolicy,
    ComputeUnder,
    FlashCopyUnder,
    LimitPolicy,
    Policy,
    RetryPolicy,
    StorageUnder,
    VisibilityUnder,
)

T = TypeVar("T")
PORTS: dict[type, Callable[[Any, Policy], Any]] = {
    ComputeDriver: ComputeUnder,
    StorageDriver: StorageUnder,
    FlashCopy: FlashCopyUnder,
    Visibility: VisibilityUnder,
}
#: What is done while a guest is held still.
HURRIED = {"cut", "quiesced"}
RETRIES = RetryPolicy(attempts=3, first_wait=0.0, longest_wait=0.0)


def methods() -> Iterator[tuple[type, str]]:
    for port in PORTS:
        for name, member in vars(port).items():
            if not name.startswith("_") and callable(member):
                yield port, name


class Noting:
    """A policy that notes what it is asked for."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str | None, Call | None]] = []

    def asking(self, what: str, ask: Callable[[], T]) -> T:
        self.noted.append(("asking", what, None))
        return ask()

    def working(self, what: str, call: Call, work: Callable[[], T]) -> T:
        self.noted.append(("working", what, call))
        return work()

    def hurrying(self, call: Call, work: Callable[[], T]) -> T:
        self.noted.append(("hurrying", None, call))
        return work()


class Speaker:
    """Has every method, notes what each was called with, and answers with that."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        def method(*args: Any, **kwargs: Any) -> Any:
            self.heard.append((name, args, kwargs))
            return self.heard[-1]

        return method


def a_call(check: Callable[[], None] = lambda: None) -> Call:
    return Call("operation", "request", check, lambda _done, _total: None)


@pytest.mark.parametrize(("port", "name"), [*methods()], ids=lambda one: getattr(one, "__name__", one))
def test_a_method_goes_through_once_with_what_it_was_given(port: type, name: str) -> None:
    noting, speaker, call = Noting(), Speaker(), a_call()
    signature = inspect.signature(getattr(port, name))
    given = {key: call if key == "call" else object() for key in list(signature.parameters)[1:]}
    by_name = {key: given[key] for key in given if signature.parameters[key].kind is inspect.Parameter.KEYWORD_ONLY}
    args = [given[key] for key in given if key not in by_name]
    told = getattr(PORTS[port](speaker, noting), name)(*args, **by_name)
    assert speaker.heard == [(name, tuple(args), by_name)]
    assert told == (None if signature.return_annotation == "None" else speaker.heard[0])
    works = "hurrying" if name in HURRIED else "working" if "call" in given else "asking"
    assert noting.noted == [(works, None if name in HURRIED else name, call if "call" in given else None)]


@pytest.mark.parametrize("port", [port for port in PORTS if hasattr(port, "capabilities")])
def test_what_a_driver_can_do_is_asked_past_every_policy(port: type) -> None:
    class Able:
        capabilities = object()

    noting = Noting()
    assert PORTS[port](Able(), noting).capabilities is Able.capabilities
    assert noting.noted == []


class Failing:
    """Work that fails so often."""

    def __init__(self, times: int, error: Exception) -> None:
        self.done = 0
        self._times = times
        self._error = error

    def __call__(self) -> str:
        self.done += 1
        if self.done <= self._times:
            raise self._error
        return "done"


AWAY = Unavailable("away")


def test_a_retry_is_made_of_what_is_unavailable_until_the_attempts_are_used_up() -> None:
    for times, attempts in ((0, 1), (2, 3)):
        asked, worked = Failing(times, AWAY), Failing(times, AWAY)
        assert RETRIES.asking("it", asked) == RETRIES.working("it", a_call(), worked) == "done"
        assert (asked.done, worked.done) == (attempts, attempts)
    forever = Failing(9, AWAY)
    with pytest.raises(Unavailable):
        RETRIES.asking("it", forever)
    assert forever.done == RETRIES.attempts


def test_a_retry_is_made_of_nothing_else() -> None:
    broken = Failing(1, BackendError("broken"))
    with pytest.raises(BackendError):
        RETRIES.working("it", a_call(), broken)
    assert broken.done == 1


def test_a_retry_is_never_made_while_a_guest_is_held_still() -> None:
    cut = Failing(1, AWAY)
    with pytest.raises(Unavailable):
        RETRIES.hurrying(a_call(), cut)
    assert cut.done == 1


def test_a_retry_is_not_made_for_an_operation_that_may_not_go_on() -> None:
    def check() -> None:
        raise Superseded("taken over")

    work = Failing(1, AWAY)
    with pytest.raises(Superseded):
        RETRIES.working("it", a_call(check), work)
    assert work.done == 1


def test_an_operation_that_may_not_go_on_begins_no_call() -> None:
    def check() -> None:
        raise Superseded("taken over")

    policy, work = CheckPolicy(), Failing(0, AWAY)
    with pytest.raises(Superseded):
        policy.working("it", a_call(check), work)
    with pytest.raises(Superseded):
        policy.hurrying(a_call(check), work)
    assert work.done == 0
    assert policy.asking("it", work) == "done"


def test_a_limit_holds_up_work_and_neither_questions_nor_cuts() -> None:
    policy, begun, go_on = LimitPolicy(1), threading.Semaphore(0), threading.Event()

    def work() -> str:
        begun.release()
        assert go_on.wait(90)
        return "done"

    with ThreadPoolExecutor(2) as pool:
        try:
            working = [pool.submit(policy.working, "it", a_call(), work) for _ in range(2)]
            assert begun.acquire(timeout=90)
            assert policy.asking("it", lambda: "asked") == "asked"
            assert policy.hurrying(a_call(), lambda: "cut") == "cut"
            assert not begun.acquire(timeout=0.1)
        finally:
            go_on.set()
        assert [one.result(timeout=90) for one in working] == ["done", "done"]
