"""Progress as anybody may ask for it, in any process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

from taskflow import states

from stillframe.domain.operation import Operation, OperationState, Progress
from stillframe.engine.persistence import FlowBooks
from stillframe.engine.progress import measure, seconds_left
from stillframe.engine.work import Ledger, Queue

_ENDED: Final = frozenset({states.SUCCESS, states.REVERTED})


class ProgressReader:
    """How far operations are, told from the store alone, whichever process works on them."""

    def __init__(self, ledger: Ledger, queue: Queue, books: FlowBooks, now: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._queue = queue
        self._books = books
        self._now = now

    def read(self, operation: Operation) -> Progress:
        detail = None if operation.record is not None else self._books.read(operation.id)
        if detail is None and operation.record is None and operation.state.final:
            # Its record took the place of its flow while we looked.
            operation = self._ledger.get(operation.id)
        elif detail is not None and detail.state in _ENDED and not operation.state.final:
            # It was settled while we looked: a flow has no end before its operation has.
            operation = self._ledger.get(operation.id)
        waits = operation.state is OperationState.PENDING
        return replace(
            measure(operation, detail),
            seconds_left=seconds_left(operation, self._now()),
            queue_position=self._queue.position(operation) if waits else None,
        )
