"""How far an operation is, told from the recorded states of its flow and tasks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from taskflow import states
from taskflow.persistence import models

from stillframe.domain.operation import Operation, OperationState, Progress

_COMPLETED: Final = frozenset({states.SUCCESS, states.FAILURE, states.REVERTED, states.REVERT_FAILURE})
_WRITE_EVERY: Final = 0.5


class Meter:
    """The weighted progress of one attempt, written to the operation's row at most every half second."""

    def __init__(self, weights: Mapping[str, float], finished: set[str], write: Callable[[int], None]) -> None:
        self._weights = weights
        self._fractions = {name: 1.0 if name in finished else 0.0 for name in weights}
        self._write = write
        self._lock = threading.Lock()
        self._written_at = time.monotonic()

    def report(self, task_name: str, fraction: float) -> None:
        """Say how far a task is, 0..1."""
        with self._lock:
            self._fractions[task_name] = max(self._fractions.get(task_name, 0.0), min(1.0, fraction))
            now = time.monotonic()
            if now - self._written_at < _WRITE_EVERY:
                return
            self._written_at = now
            percent = self.percent()
        self._write(percent)

    def percent(self) -> int:
        """0..99: the last step to 100 belongs to the settled operation."""
        whole = sum(self._weights.values())
        done = sum(self._weights[name] * self._fractions[name] for name in self._weights)
        return min(99, int(100 * done / whole)) if whole else 0


def measure(operation: Operation, detail: models.FlowDetail | None) -> Progress:
    """The progress document of an operation, from its final record or else from its recorded flow."""
    if operation.record is not None:
        record = operation.record
        return Progress(operation.progress, record["flow_details"], record["completed_tasks"], record["pending_tasks"])
    if detail is None:
        return Progress(operation.progress, {}, {}, {})
    tasks = {atom.name: _task_state(operation, atom) for atom in detail if isinstance(atom, models.TaskDetail)}
    left = [name for name, state in tasks.items() if state not in _COMPLETED]
    if operation.state.final and [tasks[name] for name in left] == [states.RUNNING]:
        # It has settled the operation from within, and only its own record has not come through yet.
        tasks[left[0]] = str(states.SUCCESS)
    return Progress(
        percent=operation.progress,
        flow_details={detail.name: _flow_state(operation, detail)},
        completed_tasks={name: state for name, state in tasks.items() if state in _COMPLETED},
        pending_tasks={name: state for name, state in tasks.items() if state not in _COMPLETED},
    )


def seconds_left(operation: Operation, now: datetime) -> int | None:
    """How long an operation will still take at the pace that it has had since its acceptance; None if unknown."""
    elapsed = (now - operation.created_at).total_seconds()
    if operation.state.final or not operation.progress or elapsed < 0:
        return None
    return max(0, round(elapsed * (100 - operation.progress) / operation.progress))


def as_record(progress: Progress) -> dict[str, Any]:
    """The part of the document that is kept when the recorded flow is dropped."""
    return {
        "flow_details": dict(progress.flow_details),
        "completed_tasks": dict(progress.completed_tasks),
        "pending_tasks": dict(progress.pending_tasks),
    }


def _task_state(operation: Operation, atom: models.TaskDetail) -> str:
    if operation.state is OperationState.SUCCEEDED:
        # It settles the operation from within its last task, whose own record may not have come through.
        return str(states.SUCCESS)
    # A volume whose restore failed is data to the flow and a failure to the user.
    if atom.state == states.SUCCESS and isinstance(atom.results, dict) and atom.results.get("ok") is False:
        return str(states.FAILURE)
    return str(atom.state or states.PENDING)


def _flow_state(operation: Operation, detail: models.FlowDetail) -> str:
    if operation.state is OperationState.SUCCEEDED:
        return str(states.SUCCESS)
    if operation.state is OperationState.FAILED:
        return str(states.FAILURE if detail.state != states.REVERTED else states.REVERTED)
    return str(detail.state or states.PENDING)
