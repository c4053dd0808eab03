"""Questions about several volumes, asked at a time: most of what a platform's answer takes is waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")

_AT_A_TIME: Final = 8


def each(copies: Mapping[str, str], ask: Callable[[str, str], T]) -> dict[str, T]:
    """What `ask` says of each volume id and copy id, by volume id; raises what it raises for the first of them."""
    with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="each") as pool:
        return dict(zip(copies, pool.map(ask, copies.keys(), copies.values()), strict=True))
