"""What the engine and its users tell each other: attempts at operations, the work they consist of, and their books."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from stillframe.domain.operation import FlowRecord, Operation, Settlement
from stillframe.domain.status import Status
from stillframe.domain.verdict import Failure
from stillframe.engine.task import Outcomes, Task

#: How an operation is settled, by what its tasks have told and why its flow did not come to its own end (None: it did).
Judge = Callable[[Outcomes, Failure | None], Settlement]


class Attempt(Protocol):
    """One attempt at an operation, as its tasks see it."""

    @property
    def operation(self) -> Operation: ...

    def check(self) -> None:
        """Raises `DeadlineExceeded` or `Superseded` where the operation may not go on; cheap enough for inner loops."""
        ...

    def check_claim(self) -> None:
        """As `check`, for undoing: raises `Superseded` only where another worker has taken the operation over."""
        ...

    def report(self, task_name: str, done: int, total: int) -> None:
        """Say how far a running task is."""
        ...

    def percent(self) -> int:
        """How far the whole is, 0..99, as far as this attempt has seen it."""
        ...


@dataclass(frozen=True, slots=True)
class Work:
    """The tasks of one operation, and how to settle it by what they tell, be it after the last or where they broke off.

    `steps` are done one after the other; those within a group, in any order. `name` is the flow's. `weights` says how
    much of the whole each task is where it has bytes to copy, by task name; tasks that are not named weigh 1. `either`
    are tasks one of which copies, as it turns out. `parallel` lets the tasks of a group run at a time.
    """

    name: str
    steps: Sequence[Task[Any] | Sequence[Task[Any]]]
    judge: Judge
    weights: Mapping[str, float] = field(default_factory=dict)
    parallel: bool = False
    either: Collection[str] = ()

    def tasks(self) -> list[Task[Any]]:
        """All tasks, in order; the last one settles the operation."""
        return [one for step in self.steps for one in ([step] if isinstance(step, Task) else step)]


Planner = Callable[[Attempt], Work]


class Ledger(Protocol):
    """The records of operations that the engine needs; the store's operations fulfil it."""

    def get(self, operation_id: str) -> Operation: ...

    def overdue(self, before: datetime) -> Sequence[Operation]: ...

    def raise_progress(self, operation: Operation, percent: int) -> None: ...

    def finish(self, operation: Operation, settlement: Settlement, now: datetime, percent: int = 0) -> Status: ...

    def keep_record(self, operation_id: str, record: FlowRecord) -> None: ...

    def free_settled(self, operation_id: str | None = None) -> None: ...

    def forget_finished(self, before: datetime, guard: Callable[[Any], None]) -> Sequence[str]: ...


class Presence(Protocol):
    """Who works on operations; the store's presence fulfils it."""

    def note(self, worker: str) -> None: ...

    def forget(self, worker: str) -> None: ...


class Witness(Protocol):
    """What notices that an older state of the database was put back; the service's witness fulfils it."""

    def note(self) -> None: ...


class Queue(Protocol):
    """The claims on operations that the engine needs; the store's queue fulfils it."""

    def take(self, worker: str, most: int, seconds: float, without: Collection[str] = ()) -> Sequence[Operation]: ...

    def claim(self, operation_id: str, worker: str, seconds: float) -> Operation | None: ...

    def renew(self, claimed: Collection[Operation], seconds: float) -> set[str]: ...

    def put_back(self, operation: Operation, seconds: float = 0, *, counted: bool = True) -> None: ...

    def abandon(self, operation: Operation) -> bool: ...

    def put_all_back(self) -> None: ...

    def holds(self, operation: Operation, *, open_only: bool = True) -> bool: ...

    def guard(self, operation: Operation) -> Callable[[Any], None]: ...

    def waiting(self) -> int: ...

    def position(self, operation: Operation) -> int | None: ...
