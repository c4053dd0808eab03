"""What befalls calls of drivers: they fail, wait, or are followed by something; and a clock that can jump."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

PATIENCE: Final = 90.0

#: Takes a method of a driver and its arguments, and does what it wants with them.
Act = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def id_in(argument: object) -> str | None:
    """The id of a copy or of anything else that an argument of a driver's method is, None for other arguments.

    Releases before have no references to copies, and are played by this as well.
    """
    told = getattr(argument, "id", None) if type(argument).__name__ == "CopyReference" else argument
    return told if isinstance(told, str) else None


def subject(arguments: Sequence[object]) -> str | None:
    """The first id in the arguments of a driver's method: what the call is about, whoever else it names."""
    return next((told for argument in arguments if (told := id_in(argument)) is not None), None)


class Gate:
    """Calls that wait to be let go, before they do anything or, with `late`, after they have done it all."""

    def __init__(self, *, late: bool = False) -> None:
        self._late = late
        self._entered = threading.Semaphore(0)
        self._open = threading.Event()

    def __call__(self, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = method(*args, **kwargs) if self._late else None
        self._entered.release()
        assert self._open.wait(PATIENCE), "nobody let the call go"
        return result if self._late else method(*args, **kwargs)

    def arrived(self, calls: int = 1) -> None:
        for _call in range(calls):
            assert self._entered.acquire(timeout=PATIENCE), "the call was never made"

    def let_go(self) -> None:
        self._open.set()


class Faults:
    """What is done in the place of driver calls, by the method's name and what it is called for; and all calls made."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._acts: dict[tuple[str, str | None], Act] = {}

    def around(self, name: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.calls.append(name)
        keys = [(name, told) for argument in args if (told := id_in(argument)) is not None]
        act = next((self._acts[key] for key in [*keys, (name, None)] if key in self._acts), None)
        return method(*args, **kwargs) if act is None else act(method, args, kwargs)

    def put(self, name: str, act: Act, about: str | None = None) -> None:
        """Let `act` take the place of a method, for all calls or those about one id."""
        self._acts[name, about] = act

    def fail(
        self, name: str, error: BaseException, about: str | None = None, *, after: int = 0, times: float = math.inf
    ) -> None:
        """Let a method fail after some calls, for some calls."""
        calls = itertools.count()

        def act(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if after <= next(calls) < after + times:
                raise error
            return method(*args, **kwargs)

        self.put(name, act, about)

    def follow(self, name: str, then: Callable[[], object]) -> None:
        """Do something just after each call of a method."""

        def act(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            found = method(*args, **kwargs)
            then()
            return found

        self.put(name, act)

    def hold(self, name: str, about: str | None = None, *, late: bool = False) -> Gate:
        """Let the calls of a method wait."""
        gate = Gate(late=late)
        self.put(name, gate, about)
        return gate

    @contextmanager
    def holding(self, name: str, about: str | None = None) -> Iterator[Gate]:
        """Let calls of a method, or those about one id, wait until the context is left, or they are let go."""
        gate = self.hold(name, about)
        try:
            yield gate
        finally:
            gate.let_go()
            self.mend(name, about)

    def take(self, name: str) -> Act:
        """What takes the place of a method at present."""
        return self._acts[name, None]

    def mend(self, name: str | None = None, about: str | None = None) -> None:
        """Let calls be as they are again: all, or those of one method."""
        if name is None:
            self._acts.clear()
        else:
            self._acts.pop((name, about), None)


class Clock:
    """The present, and any time after it that a test would rather not wait for."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC).replace(tzinfo=None) + self._ahead

    def jump(self, seconds: float) -> None:
        self._ahead += timedelta(seconds=seconds)


def wait_until(reached: Callable[[], bool], otherwise: str) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < end, otherwise
        time.sleep(0.01)
