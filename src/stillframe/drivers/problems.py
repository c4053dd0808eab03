"""What is found to be wrong with the way to a platform, before anything fails because of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and how to mend it; with one that is `grave` nothing works."""

    what: str
    mend: str
    grave: bool = False


class Problems(ABC):
    """The port to drivers that can look at the way to their platform; the service does so when it starts."""

    @abstractmethod
    def problems(self) -> Iterable[Problem]:
        """All that is wrong."""
        ...
