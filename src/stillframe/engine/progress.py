"""How far an operation is, told from the recorded states of its flow and tasks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, Final

from taskflow import states
from taskflow.persistence import models

from stillframe.domain.operation import FlowRecord, Operation, OperationState, Progress
from stillframe.engine.attempt import NoAttempt
from stillframe.engine.task import Task
from stillframe.engine.work import Planner, Work

LOG = logging.getLogger(__name__)

_COMPLETED: Final = frozenset({states.SUCCESS, states.FAILURE, states.REVERTED, states.REVERT_FAILURE, states.IGNORE})
# What comes of a task that was never begun, or was left in the middle, when the operation is settled.
_ENDS: Final = {states.PENDING: states.IGNORE, states.RUNNING: states.FAILURE, states.REVERTING: states.FAILURE}
_NOT_YET: Final = {states.SUCCESS: states.RUNNING, states.FAILURE: states.REVERTING, states.REVERTED: states.REVERTING}
_WRITE_EVERY: Final = 0.5


class Meter:
    """The weighted progress of one attempt, written to the operation's row at most every half second.

    The weights follow the work. A task that ended without a word of how far it was had no bytes to copy, and counts
    little, whatever its weight; and of the tasks that are `either`, those that are silent once another one reports.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        finished: set[str],
        write: Callable[[int], None],
        either: Collection[str] = (),
    ) -> None:
        self._weights = weights
        self._either = frozenset(either)
        self._reporting: set[str] = set()
        self._fractions = {name: 1.0 if name in finished else 0.0 for name in weights}
        self._write = write
        self._lock = threading.Lock()
        self._written_at = time.monotonic()

    def report(self, task_name: str, fraction: float) -> None:
        """Say how far a task is with its bytes, 0..1."""
        self._raise(task_name, fraction, reporting=True)

    def finish(self, task_name: str) -> None:
        """Say that a task has done what it is called after."""
        self._raise(task_name, 1.0, reporting=False)

    def percent(self) -> int:
        """0..99: the last step to 100 belongs to the settled operation."""
        weights = {name: self._weight(name) for name in self._weights}
        whole = sum(weights.values())
        done = sum(weights[name] * self._fractions[name] for name in weights)
        return min(99, int(100 * done / whole)) if whole else 0

    def _weight(self, name: str) -> float:
        if name in self._reporting:
            return self._weights[name]
        in_vain = name in self._either and bool(self._either & self._reporting)
        silent = in_vain or self._fractions[name] >= 1.0
        return min(1.0, self._weights[name]) if silent else self._weights[name]

    def _raise(self, task_name: str, fraction: float, *, reporting: bool) -> None:
        with self._lock:
            if reporting:
                self._reporting.add(task_name)
            self._fractions[task_name] = max(self._fractions.get(task_name, 0.0), min(1.0, fraction))
            now = time.monotonic()
            if now - self._written_at < _WRITE_EVERY:
                return
            self._written_at = now
            percent = self.percent()
        self._write(percent)


def outline(planner: Planner, operation: Operation) -> Work | None:
    """The work of an operation, to look at; None where a release before has left arguments that nobody knows."""
    try:
        return planner(NoAttempt(operation))
    except Exception:
        LOG.exception("task %s cannot be planned; no more is told of it than what is recorded", operation.id)
        return None


def measure(operation: Operation, work: Work | None, detail: models.FlowDetail | None) -> Progress:
    """The progress document of an operation, from its final record or else from its planned and its recorded flow.

    `operation` is of a time after `detail`, so that what settles the operation is not seen to end before it has.
    """
    record = operation.record
    if record is None:
        record = take_record(operation, work, detail)
    return Progress(
        operation.progress,
        record.flow_details,
        record.completed_tasks,
        record.pending_tasks,
        finished_at=operation.finished_at,
        fault=operation.fault,
    )


def seconds_left(operation: Operation, now: datetime) -> int | None:
    """How long an operation will still take at the pace that it has had since its acceptance; None if unknown."""
    elapsed = (now - operation.created_at).total_seconds()
    if operation.state.final or not operation.progress or elapsed < 0:
        return None
    return max(0, round(elapsed * (100 - operation.progress) / operation.progress))


def take_record(operation: Operation, work: Work | None, detail: models.FlowDetail | None) -> FlowRecord:
    """The part of the document that is kept when the recorded flow is dropped; see `measure`."""
    flow = _flow_state(operation, detail)
    tasks = _task_states(operation, work, detail, flow)
    name = work.name if work is not None else "" if detail is None else detail.name
    return FlowRecord(
        flow_details={name: flow} if name else {},
        completed_tasks={name: state for name, state in tasks.items() if state in _COMPLETED},
        pending_tasks={name: state for name, state in tasks.items() if state not in _COMPLETED},
    )


def _task_states(
    operation: Operation, work: Work | None, detail: models.FlowDetail | None, flow: str
) -> Mapping[str, str]:
    planned = {} if work is None else {task.name: task for task in work.tasks()}
    found = {**dict.fromkeys(planned, str(states.PENDING)), **_recorded(planned, detail)}
    if operation.state is OperationState.SUCCEEDED:
        # What is not recorded as done had no time to be: the last task settles the operation from within.
        found = {name: state if state == states.FAILURE else flow for name, state in found.items()}
    if operation.state.final:
        found = {name: _ENDS.get(state, state) for name, state in found.items()}
        found.update(dict.fromkeys(list(planned or found)[-1:], flow))
    return found


def _recorded(tasks: Mapping[str, Task[Any]], detail: models.FlowDetail | None) -> dict[str, str]:
    """The states of the tasks that are recorded; one that did not do what it is called after has failed."""
    found: dict[str, str] = {}
    for atom in detail or ():
        if isinstance(atom, models.TaskDetail):
            found[atom.name] = str(atom.state or states.PENDING)
            task = tasks.get(atom.name)
            if atom.state == states.SUCCESS and task is not None and not task.succeeded(atom.results):
                found[atom.name] = str(states.FAILURE)
    return found


def _flow_state(operation: Operation, detail: models.FlowDetail | None) -> str:
    state = None if detail is None else detail.state
    if operation.state is OperationState.SUCCEEDED:
        return str(states.SUCCESS)
    if operation.state is OperationState.FAILED:
        return str(states.REVERTED if state == states.REVERTED else states.FAILURE)
    # A flow has no end before its operation has.
    return str(_NOT_YET.get(state, state) or states.PENDING)
