"""Policy around drivers: each wrapper is a driver around a driver, made of one function that surrounds every call."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import tenacity

from stillframe.domain.errors import Unavailable
from stillframe.drivers.call import Call

LOG = logging.getLogger(__name__)

Driver = TypeVar("Driver")
Around = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

# Attributes that say something about the driver and reach no back end.
_DECLARATIONS: Final = frozenset({"capabilities"})

# Whatever is slow about these, a guest feels.
_UNDER_QUIESCE: Final = frozenset({"cut"})


class _Surrounded:
    def __init__(self, driver: object, around: Around) -> None:
        self._driver = driver
        self._around = around

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._driver, name)
        if name in _DECLARATIONS or not callable(member):
            return member

        def surrounded(*args: Any, **kwargs: Any) -> Any:
            return self._around(name, member, args, kwargs)

        return surrounded


def surround(driver: Driver, around: Around) -> Driver:
    """The driver with `around(method name, method, args, kwargs)` in the place of every method."""
    return cast("Driver", _Surrounded(driver, around))


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently something is tried again that was `Unavailable`; waits in seconds, with jitter."""

    attempts: int
    first_wait: float
    longest_wait: float

    def retrying(self, what: str, call: Call | None) -> tenacity.Retrying:
        """A tenacity object that tries again by this policy, as long as the call may go on."""

        def before_sleep(state: tenacity.RetryCallState) -> None:
            if call is not None:
                # Where the store does not answer either, the next try asks it again.
                with suppress(Unavailable):
                    call.check()
            problem = state.outcome.exception() if state.outcome else None
            LOG.warning("%s is unavailable, attempt %d of %d: %s", what, state.attempt_number, self.attempts, problem)

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Unavailable),
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=tenacity.wait_exponential_jitter(multiplier=self.first_wait, max=self.longest_wait),
            before_sleep=before_sleep,
            reraise=True,
        )


def with_retries(driver: Driver, policy: RetryPolicy) -> Driver:
    """Try calls again that raise `Unavailable`; but never a cut by itself, for a guest is held still around it."""

    def around(name: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name in _UNDER_QUIESCE:
            return method(*args, **kwargs)
        return policy.retrying(name, _call_in(args))(method, *args, **kwargs)

    return surround(driver, around)


def with_checks(driver: Driver) -> Driver:
    """Let no call begin for an operation that may not go on."""

    def around(_name: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = _call_in(args)
        if call is not None:
            call.check()
        return method(*args, **kwargs)

    return surround(driver, around)


def with_limit(driver: Driver, *, concurrent: int) -> Driver:
    """Let at most `concurrent` calls that work for an operation run at a time.

    Plain look-ups are not held up, nor is a cut: a guest would be held still while it waits for its place.
    """
    places = threading.BoundedSemaphore(concurrent)

    def around(name: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name in _UNDER_QUIESCE or _call_in(args) is None:
            return method(*args, **kwargs)
        with places:
            return method(*args, **kwargs)

    return surround(driver, around)


def _call_in(args: tuple[Any, ...]) -> Call | None:
    return next((argument for argument in args if isinstance(argument, Call)), None)
