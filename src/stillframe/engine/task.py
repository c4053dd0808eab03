"""A task of a flow and what came of it, as the flows see both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, Protocol, Self, TypeVar


class Outcome(Protocol):
    """What a task can tell; see `stillframe.domain.outcomes`."""

    @property
    def achieved(self) -> bool: ...

    def to_data(self) -> Any: ...

    @classmethod
    def from_data(cls, data: Any) -> Self: ...


T_co = TypeVar("T_co", bound=Outcome, covariant=True)
T = TypeVar("T", bound=Outcome)


class Task(ABC, Generic[T_co]):
    """A task, whose `outcome` is the kind of what it tells; None for one that tells nothing (`Task[Never]`).

    `after` are the earlier tasks of the flow whose outcomes it reads, by `told`. Other than by outcomes, nothing is
    handed from one task to another: between them the process may end.
    """

    outcome: type[T_co] | None = None

    def __init__(self, name: str, after: Iterable[Task[Any]] = ()) -> None:
        self.name = name
        self.after = tuple(after)
        self.told = Outcomes({})

    @abstractmethod
    def do(self) -> T_co | None:
        """Do it, again where it was begun before; None where it does not come to an outcome."""

    def undo(self) -> None:  # most leave nothing to undo
        """Undo it, be it done, half done or never begun."""

    def around(self) -> AbstractContextManager[None]:
        """What everything is done within, in its thread."""
        return nullcontext()

    def succeeded(self, record: Any) -> bool:
        """Whether a recorded outcome says that what the task is called after was done."""
        if self.outcome is None:
            return True
        told = self.read(record)
        return told is not None and told.achieved

    def read(self, record: Any) -> T_co | None:
        """What was recorded of it, if anything."""
        return None if self.outcome is None or record is None else self.outcome.from_data(record)


class Outcomes:
    """What the tasks of a flow have told so far, by what is recorded of them."""

    def __init__(self, records: Mapping[str, Any]) -> None:
        self._records = records

    def of(self, task: Task[T]) -> T | None:
        """The outcome of a task; None where it has come to none."""
        return task.read(self._records.get(task.name))
