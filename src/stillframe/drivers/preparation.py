"""Bringing what the release before left at a platform to this release's form."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Preparation(ABC):
    """What a platform's drivers need to have done once, before anything else, while no worker is at anything."""

    @abstractmethod
    def needed(self) -> bool:
        """Whether there is something to bring to this release's form."""
        ...

    @abstractmethod
    def run(self) -> None:
        """Do it; repeating it does nothing, and so a broken one is taken up again."""
        ...
