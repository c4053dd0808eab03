"""What is found to be wrong with the way to a platform, before anything fails because of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and how to mend it; with one that is `grave` nothing works."""

    what: str
    mend: str
    grave: bool = False
