"""What is done with one operation that this process has claimed: its flow is run, or it is settled without."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from taskflow import states

from stillframe.domain.errors import DeadlineExceeded, StillframeError, Superseded, Unavailable
from stillframe.domain.operation import Operation
from stillframe.domain.snapshot import Fault
from stillframe.domain.verdict import Failure, Nothing, verdict
from stillframe.engine.atoms import flow_of, undo
from stillframe.engine.attempt import RunningAttempt
from stillframe.engine.faults import fault_of
from stillframe.engine.internals import is_superseded
from stillframe.engine.persistence import FlowBooks, load, translated
from stillframe.engine.progress import Meter, outline, take_record
from stillframe.engine.task import Outcomes
from stillframe.engine.work import Ledger, Planner, Queue, Work
from stillframe.logs.context import about

LOG = logging.getLogger(__name__)

# None of them is left in a flow that was reverted.
_UNDER_WAY: Final = frozenset({states.RUNNING, states.SUCCESS, states.FAILURE, states.REVERTING})

Finished = Callable[[Operation, float], None]


@dataclass(frozen=True, slots=True)
class Tries:
    """How often an operation is taken up before it is given up, and how many of its tasks run at a time."""

    max_attempts: int
    volume_workers: int


class Execution:
    """Runs flows; everything it writes is refused once another worker has claimed the operation."""

    def __init__(
        self,
        ledger: Ledger,
        queue: Queue,
        books: FlowBooks,
        planner: Planner,
        tries: Tries,
        now: Callable[[], datetime],
    ) -> None:
        self.books = books
        self.now = now
        self._ledger = ledger
        self._queue = queue
        self._planner = planner
        self._tries = tries
        # Apart from the threads that run operations: one that waits for its tasks must not hold what they need.
        self._tasks = self._new_threads()
        self._suspending = threading.Event()
        self.on_finished: Finished = lambda _operation, _seconds: None

    def suspend(self) -> None:
        """Have every running flow stop between two of its tasks."""
        self._suspending.set()

    def close(self) -> None:
        """Take no more tasks."""
        self._tasks.shutdown(wait=False)

    def replace_threads(self) -> None:
        """Have new flows use threads of which none hangs; those that run now keep theirs."""
        self._tasks = self._new_threads()

    def _new_threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._tries.volume_workers, thread_name_prefix="task")

    def run(self, attempt: RunningAttempt) -> None:
        """Run an operation to its end, as far as that is possible now; raises whatever breaks it off."""
        operation = attempt.operation
        if operation.attempts > self._tries.max_attempts:
            broken = f"{operation.attempts - 1} attempts broke off without coming to an end."
            # Once: what ends the process when it is undone must not do so for ever.
            self.give_up(attempt, broken, undo=operation.attempts == self._tries.max_attempts + 1)
            return
        work = self._planner(attempt)
        books = self.books.guarded(self._queue.guard(operation))
        detail = books.open(operation.id, work.name)
        if not _reverted(detail, work):
            if detail.state == states.REVERTED:
                # See `_reverted`; as it stands, TaskFlow would do everything anew.
                books.mark_suspended(detail)
            self._run_flow(attempt, work, books, detail)
            detail = books.open(operation.id, work.name)
        if _reverted(detail, work) and self._queue.holds(operation):
            self._settle_failure(attempt, work, None, undone=detail.state == states.REVERTED)

    def fail_late(self, attempt: RunningAttempt, hangs_for: float | None) -> None:
        """Fail an operation that is past its deadline: it was never begun, or hangs in a call.

        `hangs_for`: how many seconds more that call is waited for; None if there is none.
        """
        operation = attempt.operation
        work = self._planner(attempt)
        hangs = hangs_for is not None
        why = "a call to the platform hangs" if hangs else "no worker was free for it"
        message = f"The operation did not end by its deadline, {operation.deadline} UTC: {why}."
        if hangs:
            message += f" The instance stays reserved until that call ends, and for {hangs_for:g} s at most."
        try:
            # Of what was never begun there is nothing to undo.
            undone = self.books.read(operation.id) is None
            self._settle_failure(attempt, work, DeadlineExceeded(message), undone=undone, free=not hangs)
        except Superseded:
            LOG.info("task %s ended by itself at the last moment", operation.id)

    def give_up(self, attempt: RunningAttempt, why: str, *, undo: bool = True) -> None:
        """Settle an operation that does not come to an end by itself, after undoing what can be undone."""
        operation = attempt.operation
        error = StillframeError(f"Given up: {why}")
        try:
            work = self._planner(attempt)
        except Exception:
            LOG.exception("task %s cannot even be planned", operation.id)
            failure = Failure(Fault(error.code, error.message, self.now()), undone=False)
            self._ledger.finish(operation, verdict(Nothing(operation.action, failure)), self.now())
        else:
            self._settle_failure(attempt, work, error, undone=undo and _undo(operation, work))

    def close_books(self, operation_id: str) -> bool:
        """Once an operation is final: keep its record, drop its flow, give its instance back; False if it is open."""
        operation = self._ledger.get(operation_id)
        if not operation.state.final:
            return False
        detail = self.books.read(operation_id)
        if operation.record is None:
            self._ledger.keep_record(operation_id, take_record(operation, outline(self._planner, operation), detail))
            seconds = ((operation.finished_at or self.now()) - operation.created_at).total_seconds()
            with about(operation.request_id, operation.id):
                LOG.info(
                    "%s of instance snapshot %s as task %s has %s after %.1f s",
                    *(operation.action, operation.snapshot_id, operation.id, operation.state, seconds),
                )
            self.on_finished(operation, seconds)
        self.books.drop(operation_id)
        return True

    def _run_flow(self, attempt: RunningAttempt, work: Work, books: FlowBooks, detail: Any) -> None:
        finished = {atom.name for atom in detail if atom.state == states.SUCCESS}
        tasks = {task.name: task for task in work.tasks()}
        weights = {name: work.weights.get(name, 1.0) for name in tasks}

        def show(percent: int) -> None:
            self._show_progress(attempt, percent)

        meter = attempt.meter = Meter(weights, finished, show, work.either)
        engine = load(flow_of(work), detail, books.backend, self._tasks if work.parallel else None)

        def count(_state: str, details: Mapping[str, Any]) -> None:
            if tasks[details["task_name"]].succeeded(details["result"]):
                meter.finish(details["task_name"])

        engine.atom_notifier.register(states.SUCCESS, count)
        try:
            steps = engine.run_iter()
            with translated(), suppress(StopIteration):
                next(steps)
                while True:
                    # Suspended from within: another thread would have to wait for the task that runs.
                    steps.send(self._suspending.is_set())
        except Exception as error:
            if is_superseded(error):
                # Whatever else has failed at the time fails for the one who goes on, too.
                raise Superseded(f"Task {detail.uuid} has been settled already, or taken over by another.") from None
            if not _reverted(self.books.read(detail.uuid), work):
                raise
            LOG.warning("the flow of task %s was reverted", detail.uuid)

    def _show_progress(self, attempt: RunningAttempt, percent: int) -> None:
        try:
            self._ledger.raise_progress(attempt.operation, percent)
        except Unavailable as error:
            # The next report shows it; the work it is about must not suffer.
            LOG.warning("task %s: its progress is not shown: %s", attempt.operation.id, error)

    def _settle_failure(
        self, attempt: RunningAttempt, work: Work, error: Exception | None, *, undone: bool, free: bool = True
    ) -> None:
        operation = attempt.operation
        detail = self.books.read(operation.id)
        code, message = fault_of(error, detail)
        failure = Failure(Fault(code, message, self.now()), undone=undone)
        # Those of tasks that were reverted too: what was done to a volume stays done.
        results = {} if detail is None else {atom.name: atom.results for atom in detail if atom.results is not None}
        try:
            settlement = work.judge(Outcomes(results), failure)
        except Unavailable:
            raise
        except Exception:
            LOG.exception("task %s: how it ended cannot be told", operation.id)
            settlement = verdict(Nothing(operation.action, failure))
        if not free:
            settlement = settlement.keeping_lock()
        status = self._ledger.finish(operation, settlement, self.now(), attempt.percent())
        LOG.error(
            "task %s failed; instance snapshot %s is %s: %s", operation.id, operation.snapshot_id, status, message
        )


def _reverted(detail: Any, work: Work) -> bool:
    """Whether a recorded flow has been reverted, or could not be: then it must not run again.

    Its own state alone does not tell: TaskFlow takes a flow for reverted, too, that was suspended while all that could
    have been done next was waiting for a thread. Tasks that only another release's flow has stay as that one left them.
    """
    if detail is None:
        return False
    ours = {task.name for task in work.tasks()}
    found = {atom.state for atom in detail if atom.name in ours}
    return states.REVERT_FAILURE in found or (detail.state == states.REVERTED and not found & _UNDER_WAY)


def _undo(operation: Operation, work: Work) -> bool:
    """Undo all that the tasks may have done, the last first; False if something could not be.

    Each of them can be undone whether it was executed or not.
    """
    whole = True
    for task in reversed(work.tasks()):
        try:
            undo(task)
        except StillframeError as error:
            LOG.warning("task %s: %s could not be undone: %s", operation.id, task.name, error)
            whole = False
    return whole
