"""Policy around drivers: each wrapper is a driver around a driver, made of one function that surrounds every call."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import tenacity

from stillframe.domain.errors import Unavailable
from stillframe.drivers.call import Call

LOG = logging.getLogger(__name__)

Driver = TypeVar("Driver")
Around = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

# Attributes that say something about the driver and reach no back end.
_DECLARATIONS: Final = frozenset({"capabilities"})


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


def with_retries(driver: Driver, *, attempts: int, first_wait: float, longest_wait: float) -> Driver:
    """Try calls again that raise `Unavailable`, with exponential back-off in seconds and within the call's deadline.

    A context manager's body is never repeated: only the call that makes it is.
    """

    def around(name: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = next((argument for argument in args if isinstance(argument, Call)), None)

        def before_sleep(state: tenacity.RetryCallState) -> None:
            if call is not None:
                call.check()
            problem = state.outcome.exception() if state.outcome else None
            LOG.warning("%s is unavailable, attempt %d of %d: %s", name, state.attempt_number, attempts, problem)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Unavailable),
            stop=tenacity.stop_after_attempt(attempts),
            wait=tenacity.wait_exponential_jitter(initial=first_wait, max=longest_wait),
            before_sleep=before_sleep,
            reraise=True,
        )
        return retrying(method, *args, **kwargs)

    return surround(driver, around)


def with_checks(driver: Driver) -> Driver:
    """Let no call begin for an operation that may not go on."""

    def around(_name: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for argument in args:
            if isinstance(argument, Call):
                argument.check()
        return method(*args, **kwargs)

    return surround(driver, around)


def with_limit(driver: Driver, *, concurrent: int) -> Driver:
    """Let at most `concurrent` calls that work for an operation run at a time; plain look-ups are not held up."""
    places = threading.BoundedSemaphore(concurrent)

    def around(_name: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not any(isinstance(argument, Call) for argument in args):
            return method(*args, **kwargs)
        with places:
            return method(*args, **kwargs)

    return surround(driver, around)
