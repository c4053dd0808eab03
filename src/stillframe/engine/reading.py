"""Progress as anybody may ask for it, in any process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from taskflow.persistence.models import FlowDetail

from stillframe.domain.operation import Operation, OperationState, Progress
from stillframe.engine.persistence import FlowBooks
from stillframe.engine.progress import measure, outline, seconds_left
from stillframe.engine.work import Ledger, Planner, Queue


class ProgressReader:
    """How far operations are, told from the store alone, whichever process works on them."""

    def __init__(
        self, ledger: Ledger, queue: Queue, books: FlowBooks, planner: Planner, now: Callable[[], datetime]
    ) -> None:
        self._ledger = ledger
        self._queue = queue
        self._books = books
        self._planner = planner
        self._now = now

    def read(self, operation: Operation) -> Progress:
        detail = None
        if operation.record is None:
            operation, detail = self._look(operation)
        waits = operation.state is OperationState.PENDING
        work = outline(self._planner, operation) if operation.record is None else None
        return replace(
            measure(operation, work, detail),
            seconds_left=seconds_left(operation, self._now()),
            queue_position=self._queue.position(operation) if waits else None,
        )

    def _look(self, operation: Operation) -> tuple[Operation, FlowDetail | None]:
        """An operation as it is after its flow, see `measure`; once it is settled, the flow lacks none of its tasks."""
        detail = self._books.read(operation.id)
        seen = self._ledger.get(operation.id)
        settled_meanwhile = seen.state.final and not operation.state.final
        return self._look(seen) if settled_meanwhile else (seen, detail)
