"""Progress as anybody may ask for it, in any process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

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
            detail = self._books.read(operation.id)
            # Looked at after its flow: see `measure`.
            operation = self._ledger.get(operation.id)
        waits = operation.state is OperationState.PENDING
        work = outline(self._planner, operation) if operation.record is None else None
        return replace(
            measure(operation, work, detail),
            seconds_left=seconds_left(operation, self._now()),
            queue_position=self._queue.position(operation) if waits else None,
        )
