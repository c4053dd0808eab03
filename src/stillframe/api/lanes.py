"""What a request will wait for, told from its first line and its credentials, before anything is done for it.

A server that has threads for each lane answers those of one whatever the others wait for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Final

from stillframe.paths import CINDER, NOVA, SERVERS, SNAPSHOTS, VOLUMES

Choose = Callable[[str, str, str | None], "Lane"]

_HEALTH: Final = frozenset({"/healthcheck", "/readiness"})
_SNAPSHOTS: Final = re.compile(CINDER.pattern(SNAPSHOTS) + r"(/[^/]*)?/?")
# A list is of nobody in particular.
_ABOUT_ONE: Final = re.compile(rf"(?:{NOVA.pattern(SERVERS)}|{CINDER.pattern(VOLUMES)})/(?!detail/?$)([^/]+)(?:/.*)?")
_CHANGE_NOTHING_ELSE: Final = frozenset({"GET", "HEAD", "PUT"})


class Lane(Enum):
    """What a request waits for."""

    MAIN = "the platform behind"
    STORE = "the database"
    CHECKING = "the check of a password"
    HEALTH = "nothing"


def subject(path: str) -> str | None:
    """The instance or volume that a request is about, by its id: what one waits for, the others may wait for, too."""
    found = _ABOUT_ONE.fullmatch(path)
    return found.group(1) if found else None


def choose(method: str, path: str, authorization: str | None, costly: Callable[[str | None], bool]) -> Lane:
    """The lane of a request; `path` is decoded, `costly` the guard's."""
    if path in _HEALTH:
        return Lane.HEALTH
    if costly(authorization):
        return Lane.CHECKING
    if method in _CHANGE_NOTHING_ELSE and _SNAPSHOTS.fullmatch(path):
        return Lane.STORE
    return Lane.MAIN
