"""Pages, orders and markers of lists, by the guidelines of the OpenStack API group and Cinder's habits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from stillframe.domain.errors import InvalidInput
from stillframe.store.snapshots import SORT_KEYS, Sort

if TYPE_CHECKING:
    from collections.abc import Sequence


class Identified(Protocol):
    """Something that can be a marker."""

    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=Identified)


def page_limit(asked: int | None, most: int) -> int:
    """As in Cinder: no limit means the most there is, more is cut down to it, and 0 is an empty page."""
    return most if asked is None else min(asked, most)


def parse_sort(sort: str | None, sort_key: str | None, sort_dir: str | None) -> tuple[Sort, ...]:
    """`sort=key:direction,...` or the older pair of parameters; the newest first without either."""
    if sort is not None:
        if sort_key is not None or sort_dir is not None:
            raise InvalidInput("cannot be used together with 'sort_key' and 'sort_dir'", "sort")
        return _unique([_parse_item(item) for item in sort.split(",")])
    if sort_key is not None and sort_key not in SORT_KEYS:
        raise InvalidInput(_unknown_key(sort_key), "sort_key")
    return (Sort(sort_key or "created_at", sort_dir != "asc"),)


def _parse_item(item: str) -> Sort:
    key, colon, direction = item.strip().partition(":")
    if key not in SORT_KEYS:
        raise InvalidInput(_unknown_key(key), "sort")
    if colon and direction not in ("asc", "desc"):
        raise InvalidInput(f"'{direction}' is no direction; it must be asc or desc", "sort")
    return Sort(key, direction != "asc")


def _unique(items: Sequence[Sort]) -> tuple[Sort, ...]:
    keys = [item.key for item in items]
    for key in keys:
        if keys.count(key) > 1:
            raise InvalidInput(f"names '{key}' more than once", "sort")
    return tuple(items)


def _unknown_key(key: str) -> str:
    return f"'{key}' is no key to sort by; these are: {', '.join(sorted(SORT_KEYS))}"


def cut_page(items: Sequence[Item], limit: int, marker: str | None) -> tuple[Sequence[Item], bool]:
    """The items of one page out of all, and whether there are more behind it."""
    start = 0
    if marker is not None:
        positions = [position for position, item in enumerate(items) if item.id == marker]
        if not positions:
            raise InvalidInput(f"there is no item '{marker}' to go on from", "marker")
        start = positions[0] + 1
    return items[start : start + limit], len(items) > start + limit
