"""Something whose every method has a function of the test's in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

Surrounded = TypeVar("Surrounded")
Around = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

# Attributes that say something about a driver and reach no back end.
_DECLARATIONS: Final = frozenset({"capabilities"})


class _Surrounded:
    def __init__(self, inner: object, around: Around) -> None:
        self._inner = inner
        self._around = around

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._inner, name)
        if name in _DECLARATIONS or not callable(member):
            return member

        def surrounded(*args: Any, **kwargs: Any) -> Any:
            return self._around(name, member, args, kwargs)

        return surrounded


def surround(inner: Surrounded, around: Around) -> Surrounded:
    """The same with `around(method name, method, args, kwargs)` in the place of every method."""
    return cast("Surrounded", _Surrounded(inner, around))
