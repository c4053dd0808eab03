"""What every task of a flow has at hand: the ports, the operation, and the call it makes drivers on behalf of."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Final, Never

from stillframe.domain.arguments import Action
from stillframe.domain.errors import Interrupted, StillframeError, Superseded
from stillframe.domain.operation import Operation, Settlement
from stillframe.domain.snapshot import CopyKind, CopyName, CopyReference, InstanceSnapshot, VolumeSnapshot
from stillframe.drivers.call import Call
from stillframe.drivers.compute import ComputeDriver
from stillframe.drivers.storage import StorageDriver
from stillframe.drivers.wrappers import RetryPolicy
from stillframe.engine.faults import storable
from stillframe.engine.task import T_co, Task
from stillframe.engine.work import Attempt, Judge
from stillframe.flows.records import Records
from stillframe.logs.context import about

LOG = logging.getLogger(__name__)

# Most of the time that such a call takes is waiting for the disk or the platform.
_AT_A_TIME: Final = 8
# What works on what an earlier operation has left.
_ON_TRACES: Final = (Action.RETRY, Action.ROLLBACK, Action.DELETE)


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything outside a flow that its tasks may touch.

    The records and the drivers try again by themselves; `operation_retries` is for what consists of more than one call,
    and `retries` for what somebody is held still by.
    """

    records: Records
    compute: ComputeDriver
    storage: StorageDriver
    retries: RetryPolicy
    operation_retries: RetryPolicy
    now: Callable[[], datetime]
    graceful_stop_seconds: float


class _Parts:
    """The progress of a task that consists of equal parts which advance at a time."""

    def __init__(self, count: int, report: Callable[[int, int], None]) -> None:
        self._fractions = [0.0] * count
        self._report = report

    def report(self, number: int, done: int, total: int) -> None:
        self._fractions[number] = done / total if total else 0.0
        self._report(int(1000 * sum(self._fractions)), 1000 * len(self._fractions))


class Step(Task[T_co]):
    """A task of ours. Each may be done again after a crash, and each `undo` after a crash of its own."""

    def __init__(self, ports: Ports, attempt: Attempt, name: str, after: Iterable[Task[Any]] = ()) -> None:
        super().__init__(name, after)
        self.ports = ports
        self.attempt = attempt

    @property
    def operation(self) -> Operation:
        return self.attempt.operation

    @property
    def instance_id(self) -> str:
        return self.operation.instance_id

    def around(self) -> AbstractContextManager[None]:
        """Let what a thread logs name the operation; each thread needs its own."""
        return about(self.operation.request_id, self.operation.id)

    def call(self) -> Call:
        """What drivers are told while this task is executed."""
        attempt = self.attempt
        return self._bound(attempt.check, lambda done, total: attempt.report(self.name, done, total))

    def complete_all(self, copies: Sequence[CopyReference]) -> None:
        """Wait until all copies can be relied on; those that were cut ready need not be among them."""
        parts = _Parts(len(copies), partial(self.attempt.report, self.name))

        def complete(number: int) -> None:
            call = self._bound(self.attempt.check, partial(parts.report, number))
            with self.around():
                self.ports.storage.complete(call, copies[number])
            parts.report(number, 1, 1)

        self.at_a_time(complete, range(len(copies)))

    def at_a_time(self, do: Callable[..., object], *arguments: Iterable[Any]) -> None:
        """Call `do` with the first of all arguments, the second, and so on, several at a time; raises as it does."""
        with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="step") as pool:
            list(pool.map(do, *arguments))

    def settle(self, settlement: Settlement) -> None:
        """Settle the operation; where the reply of the store is lost, the very same is said again."""
        self.ports.records.finish(self.operation, settlement, self.ports.now(), self.attempt.percent())

    def require(self, call: Call) -> None:
        """Raises `Interrupted` if the operation may not go on; waits for a store that cannot say."""
        self.ports.operation_retries.retrying("the store", None)(call.check)

    def undo_call(self) -> Call:
        """What drivers are told while this task is reverted: nothing but another worker stops its cleaning up."""
        return self._bound(self.attempt.check_claim, lambda _done, _total: None)

    def log_failure(self, error: StillframeError, what: str) -> None:
        """Tell what could not be done; no error where that is perhaps another worker's by now. Raises `Superseded`."""
        try:
            self.attempt.check_claim()
        except Superseded:
            raise
        except StillframeError:
            LOG.warning("task %s: %s, unless another worker has taken over: %s", self.operation.id, what, error)
        else:
            LOG.error("task %s: %s", self.operation.id, what, exc_info=error)

    def log_undone(self, error: Exception, what: str) -> None:
        """Tell that not all could be undone; nothing is amiss where that is left to a worker that has taken over."""
        if isinstance(error, Superseded):
            LOG.info("task %s is undone by whoever has it now: %s", self.operation.id, error)
        else:
            LOG.error("task %s: %s", self.operation.id, what, exc_info=error)

    def _bound(self, check: Callable[[], None], report: Callable[[int, int], None]) -> Call:
        operation = self.operation
        # Whether an earlier claim, or the operation whose traces are worked on, had all its answers, nobody knows.
        repeated = operation.generation > 1 or operation.action in _ON_TRACES
        return Call(operation.id, operation.request_id, check, report, operation.instance_id, repeated=repeated)

    def snapshot(self) -> InstanceSnapshot:
        """The row that the operation works on, as it is now."""
        return self.ports.records.snapshot(self.operation.snapshot_id)

    def copy_name(self, kind: CopyKind, volume_id: str) -> CopyName:
        return CopyName(kind, self.operation.snapshot_id, volume_id, self.operation.id)

    def copies(self) -> list[VolumeSnapshot]:
        """The copies that belong to the instance snapshot, whole or half-made."""
        found = self.ports.storage.find(self.operation.snapshot_id, self.instance_id, self.operation.project_id)
        return [copy for copy in found if copy.may_be_of(self.operation.project_id)]

    def delete_copies(self, call: Call, kind: CopyKind, operation_id: str | None = None) -> None:
        """Delete the snapshot's copies of a kind, whole or half-made (None: whichever operation made them).

        One that cannot be deleted keeps none of the others; its error is raised when all have been tried.
        """
        unwanted = [
            copy.reference
            for copy in self.copies()
            if copy.name.kind is kind and operation_id in (None, copy.name.operation_id)
        ]
        quiet = replace(call, report=lambda _done, _total: None)
        for error in self.delete_all(quiet, unwanted).values():
            raise error

    def delete_all(self, call: Call, copies: Sequence[CopyReference]) -> dict[str, StillframeError]:
        """Delete copies; the errors of those that could not be deleted, by their ids; raises `Interrupted`."""
        parts = _Parts(len(copies), call.report)

        def delete(number: int) -> StillframeError | None:
            with self.around():
                error = self._delete(call, copies[number])
            if error is None:
                parts.report(number, 1, 1)
            return error

        with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="delete") as pool:
            errors = list(pool.map(delete, range(len(copies))))
        return {copy.id: error for copy, error in zip(copies, errors, strict=True) if error is not None}

    def _delete(self, call: Call, copy: CopyReference) -> StillframeError | None:
        try:
            self.ports.storage.delete(call, copy)
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001  # it is told, and says nothing about the other copies
            return storable(error, f"task {call.operation_id}: deleting volume snapshot {copy.id}")
        return None


class SettlingOperation(Step[Never]):
    """Settle the operation by what its tasks have told."""

    def __init__(self, ports: Ports, attempt: Attempt, after: Iterable[Task[Any]], judge: Judge) -> None:
        super().__init__(ports, attempt, "SnapshotDone", after)
        self._judge = judge

    def do(self) -> None:
        self.settle(self._judge(self.told, None))
