"""What tells workers in other processes that there is something to do."""

from __future__ import annotations

from collections.abc import Collection
from threading import Event
from typing import Any, Protocol


class Board(Protocol):
    """A place where accepted operations are announced.

    The store decides who works on what, so a board may lose, repeat or delay what it is told, or not answer at all:
    none of its methods raises. What it gives is that workers need not ask the store all the time.
    """

    @property
    def answers(self) -> bool:
        """Whether it did when it was told or asked something last."""
        ...

    def announce(self, operation_id: str) -> None:
        """Tell the workers that there is an operation for them."""
        ...

    def taken(self, operation_id: str) -> None:
        """This worker has claimed an operation."""
        ...

    def renew(self, operation_ids: Collection[str]) -> None:
        """This worker goes on working on these."""
        ...

    def put_back(self, operation_id: str) -> None:
        """This worker has given a claim back."""
        ...

    def done(self, operation_id: str) -> None:
        """An operation that this worker had claimed is final."""
        ...

    def wait(self, wake: Event, seconds: float) -> None:
        """Return when `wake` is set, when there may be something new to do, or after so many seconds."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class NoBoard:
    """For who looks into the store every second, as a single process and small sets of workers well may."""

    answers = True

    def announce(self, operation_id: str) -> None:
        """See `Board`."""

    def taken(self, operation_id: str) -> None:
        """See `Board`."""

    def renew(self, operation_ids: Collection[str]) -> None:
        """See `Board`."""

    def put_back(self, operation_id: str) -> None:
        """See `Board`."""

    def done(self, operation_id: str) -> None:
        """See `Board`."""

    def wait(self, wake: Event, seconds: float) -> None:
        """See `Board`."""
        wake.wait(min(seconds, 1.0))

    def close(self) -> None:
        """See `Board`."""


def given(conf: dict[str, Any]) -> dict[str, Any]:
    """What is not None."""
    return {key: value for key, value in conf.items() if value is not None}
