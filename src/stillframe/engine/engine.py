"""The embedded engine: takes operations up, runs their flows in threads, and settles what cannot settle itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from taskflow import states

from stillframe.domain.errors import DeadlineExceeded, NotFound, StillframeError, Superseded, Unavailable
from stillframe.domain.operation import FAILURES, Operation, Progress, Settlement
from stillframe.domain.snapshot import Fault
from stillframe.engine.faults import fault_of
from stillframe.engine.persistence import FlowBooks, load
from stillframe.engine.progress import Meter, as_record, measure, seconds_left
from stillframe.engine.work import Failure, Ledger, Planner, Work

LOG = logging.getLogger(__name__)

_LOOK_EVERY: Final = 1.0
_FORGET_EVERY: Final = 3600.0
_GRACE: Final = timedelta(seconds=10)
_LONGEST_WAIT: Final = 300.0
_ENDED: Final = frozenset({states.SUCCESS, states.REVERTED})

Finished = Callable[[Operation, float], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is done at a time, and how often an operation is taken up before it is given up."""

    workers: int
    volume_workers: int
    max_attempts: int
    keep_records: timedelta


class _Attempt:
    """An attempt that is running in this process; see `stillframe.engine.work.Attempt`."""

    def __init__(self, operation: Operation, ledger: Ledger, now: Callable[[], datetime]) -> None:
        self.operation = operation
        self._ledger = ledger
        self._now = now
        self._looked_at = 0.0
        self.meter: Meter | None = None

    def check(self) -> None:
        if self._now() > self.operation.deadline:
            raise DeadlineExceeded(f"The operation did not end by its deadline, {self.operation.deadline} UTC.")
        moment = time.monotonic()
        if moment - self._looked_at < _LOOK_EVERY:
            return
        self._looked_at = moment
        try:
            still_open = self._ledger.is_open(self.operation.id)
        except Unavailable as error:
            # A ledger that cannot be asked says nothing about the platform that is being worked on.
            LOG.warning("task %s goes on unasked: %s", self.operation.id, error)
            return
        if not still_open:
            raise Superseded(f"Task {self.operation.id} has been settled already.")

    def report(self, task_name: str, done: int, total: int) -> None:
        if self.meter is not None and total > 0:
            self.meter.report(task_name, done / total)


class Engine:
    """Runs every operation that is not final, each once at a time, until it is.

    Nothing is lost with the process: what was accepted is in the ledger, what was done is in the flow books, and
    `start` takes both up again.
    """

    def __init__(
        self, ledger: Ledger, books: FlowBooks, planner: Planner, limits: Limits, now: Callable[[], datetime]
    ) -> None:
        self._ledger = ledger
        self._books = books
        self._planner = planner
        self._limits = limits
        self._now = now
        self._operations = ThreadPoolExecutor(limits.workers, thread_name_prefix="operation")
        # Apart from the pool above: an operation that waits for its tasks must not hold the threads they need.
        self._tasks = ThreadPoolExecutor(limits.volume_workers, thread_name_prefix="task")
        self._running: dict[str, threading.Thread | None] = {}
        self._not_before: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._overseer = threading.Thread(target=self._oversee, name="overseer", daemon=True)
        self.on_finished: Finished = lambda _operation, _seconds: None

    def start(self) -> None:
        """Take up everything that is unfinished, and watch over deadlines from then on."""
        self._sweep()
        for operation in self._ledger.unfinished():
            LOG.info("taking up task %s again: %s", operation.id, operation.action)
            self.submit(operation.id)
        self._overseer.start()

    def stop(self, seconds: float) -> bool:
        """Take nothing more up and wait for what runs; False if some of it still does. A new start resumes that."""
        self._stopping.set()
        self._operations.shutdown(wait=False, cancel_futures=True)
        until = time.monotonic() + seconds
        while time.monotonic() < until and self._active():
            time.sleep(0.05)
        self._tasks.shutdown(wait=False)
        with self._lock:
            left = [operation_id for operation_id, thread in self._running.items() if thread is not None]
        for operation_id in left:
            # It is us who break it off, so that does not count against it.
            self._ledger.give_attempt_back(operation_id)
        return not left

    def submit(self, operation_id: str) -> None:
        """Have an operation run; one that is queued or running already is left alone."""
        with self._lock:
            if operation_id in self._running or self._stopping.is_set():
                return
            self._running[operation_id] = None
        try:
            self._operations.submit(self._run_guarded, operation_id)
        except RuntimeError:
            # Shut down meanwhile: the next start finds it in the ledger.
            with self._lock:
                self._running.pop(operation_id, None)

    def queued(self) -> int:
        """How many operations wait for a worker."""
        with self._lock:
            return sum(1 for thread in self._running.values() if thread is None)

    def progress(self, operation: Operation) -> Progress:
        """How far an operation is."""
        detail = None if operation.record is not None else self._books.read(operation.id)
        if detail is None and operation.record is None and operation.state.final:
            # Its record took the place of its flow while we looked.
            operation = self._ledger.get(operation.id)
        elif detail is not None and detail.state in _ENDED and not operation.state.final:
            # It was settled while we looked: a flow has no end before its operation has.
            operation = self._ledger.get(operation.id)
        return replace(measure(operation, detail), seconds_left=seconds_left(operation, self._now()))

    def _active(self) -> bool:
        with self._lock:
            return any(thread is not None for thread in self._running.values())

    def _run_guarded(self, operation_id: str) -> None:
        with self._lock:
            if operation_id not in self._running or self._running[operation_id] is not None:
                # The overseer has settled it while it was queued, or is about to.
                return
            self._running[operation_id] = threading.current_thread()
        try:
            self._run(operation_id)
        except Superseded as error:
            LOG.warning("task %s: %s", operation_id, error)
            self._put_off(operation_id)
        except Exception:
            # What is left is taken up again by the overseer, ever later, up to the cap on attempts.
            LOG.exception("task %s: the attempt broke off", operation_id)
            self._put_off(operation_id)
        finally:
            # In this order: what is closed is not taken up again.
            self._close(operation_id)
            with self._lock:
                self._running.pop(operation_id, None)

    def _put_off(self, operation_id: str) -> None:
        with self._lock:
            _until, wait = self._not_before.get(operation_id, (0.0, 0.5))
            self._not_before[operation_id] = (time.monotonic() + wait, min(2 * wait, _LONGEST_WAIT))

    def _run(self, operation_id: str) -> None:
        operation = self._ledger.get(operation_id)
        if operation.state.final:
            return
        attempt = _Attempt(operation, self._ledger, self._now)
        number = self._ledger.start_attempt(operation_id)
        if number > self._limits.max_attempts:
            self._give_up(operation, attempt, number - 1)
            return
        work = self._planner(attempt)
        detail = self._books.open(operation_id, work.flow.name)
        if not _reverted(detail):
            finished = {atom.name for atom in detail if atom.state == states.SUCCESS}
            weights = {name: work.weights.get(name, 1.0) for name in _task_names(work.flow)}
            attempt.meter = Meter(weights, finished, partial(self._show_progress, operation_id))
            self._run_flow(work, detail, attempt.meter)
            detail = self._books.open(operation_id, work.flow.name)
        if _reverted(detail) and self._ledger.is_open(operation_id):
            self._settle_failure(operation, work, None, undone=detail.state == states.REVERTED)

    def _give_up(self, operation: Operation, attempt: _Attempt, attempts: int) -> None:
        error = StillframeError(f"Given up: {attempts} attempts broke off without coming to an end.")
        try:
            work = self._planner(attempt)
        except Exception:
            LOG.exception("task %s cannot even be planned", operation.id)
            fault = Fault(error.code, error.message, self._now())
            settlement = Settlement(FAILURES[operation.action], succeeded=False, fault=fault)
            self._ledger.finish(operation.id, settlement, self._now())
        else:
            self._settle_failure(operation, work, error, undone=False)

    def _run_flow(self, work: Work, detail: Any, meter: Meter) -> None:
        engine = load(work.flow, detail, self._books.backend, self._tasks if work.parallel else None)
        engine.atom_notifier.register(states.SUCCESS, lambda _state, details: meter.report(details["task_name"], 1.0))
        try:
            engine.run()
        except Exception:
            if not _reverted(self._books.read(detail.uuid)):
                raise
            LOG.warning("the flow of task %s was reverted", detail.uuid, exc_info=True)

    def _show_progress(self, operation_id: str, percent: int) -> None:
        try:
            self._ledger.raise_progress(operation_id, percent)
        except Unavailable as error:
            # The next report shows it; the work it is about must not suffer.
            LOG.warning("task %s: its progress is not shown: %s", operation_id, error)

    def _settle_failure(
        self, operation: Operation, work: Work, error: Exception | None, *, undone: bool, free: bool = True
    ) -> None:
        operation = self._ledger.get(operation.id)
        detail = self._books.read(operation.id)
        code, message = fault_of(error, detail)
        fault = Fault(code, message, self._now())
        # Those of tasks that were reverted too: what was done to a volume stays done.
        results = {} if detail is None else {atom.name: atom.results for atom in detail if atom.results is not None}
        settlement = work.settle_failure(Failure(fault, undone=undone, results=results))
        if not free:
            settlement = settlement.keeping_lock()
        status = self._ledger.finish(operation.id, settlement, self._now())
        LOG.error(
            "task %s failed; instance snapshot %s is %s: %s", operation.id, operation.snapshot_id, status, message
        )

    def _close(self, operation_id: str) -> None:
        """Once an operation is final: keep its record, drop its flow, give its instance back."""
        try:
            operation = self._ledger.get(operation_id)
            if not operation.state.final:
                return
            detail = self._books.read(operation_id)
            if detail is not None and operation.record is None:
                self._ledger.keep_record(operation_id, as_record(measure(operation, detail)))
                self._report_finished(operation)
            self._books.drop(operation_id)
            self._ledger.free_settled(operation_id)
            with self._lock:
                self._not_before.pop(operation_id, None)
        except Exception:
            LOG.exception("task %s: its books could not be closed; the next start does it", operation_id)

    def _report_finished(self, operation: Operation) -> None:
        finished = operation.finished_at or self._now()
        self.on_finished(operation, (finished - operation.created_at).total_seconds())

    def _sweep(self) -> None:
        """Close the books that a killed process left open, and forget old records."""
        for operation_id in self._books.ids():
            try:
                self._ledger.get(operation_id)
            except NotFound:
                self._books.drop(operation_id)
                continue
            self._close(operation_id)
        self._ledger.free_settled()
        self._forget()

    def _forget(self) -> None:
        for operation_id in self._ledger.forget_finished(self._now() - self._limits.keep_records):
            self._books.drop(operation_id)

    def _oversee(self) -> None:
        forgotten_at = time.monotonic()
        while not self._stopping.wait(_LOOK_EVERY):
            try:
                self._look()
                if time.monotonic() - forgotten_at > _FORGET_EVERY:
                    forgotten_at = time.monotonic()
                    self._forget()
            except Exception:
                LOG.exception("the overseer could not look after the operations; it tries again")

    def _look(self) -> None:
        for operation in self._ledger.unfinished():
            try:
                self._look_after(operation)
            except Exception:
                # One operation that cannot be looked after must not keep the others from it.
                LOG.exception("the overseer could not look after task %s; it tries again", operation.id)

    def _look_after(self, operation: Operation) -> None:
        """Take up what no thread works on, and fail what is past its deadline because it hangs or was never begun."""
        late = self._now() > operation.deadline + _GRACE
        with self._lock:
            known = operation.id in self._running
            queued = known and self._running[operation.id] is None
            if queued and late:
                # From here on no worker takes it up.
                self._running[operation.id] = threading.current_thread()
            not_before, _wait = self._not_before.get(operation.id, (0.0, 0.0))
        if not known:
            if time.monotonic() >= not_before:
                self.submit(operation.id)
        elif late and queued:
            try:
                self._fail_late(operation, hangs=False)
            finally:
                self._close(operation.id)
                with self._lock:
                    self._running.pop(operation.id, None)
        elif late:
            self._fail_late(operation, hangs=True)

    def _fail_late(self, operation: Operation, *, hangs: bool) -> None:
        work = self._planner(_Attempt(operation, self._ledger, self._now))
        why = "a call to the platform hangs" if hangs else "no worker was free for it"
        message = f"The operation did not end by its deadline, {operation.deadline} UTC: {why}."
        if hangs:
            message += " The instance stays reserved until that call ends or the service is started anew."
        try:
            # Of what was never begun there is nothing to undo.
            undone = operation.attempts == 0
            self._settle_failure(operation, work, DeadlineExceeded(message), undone=undone, free=not hangs)
        except Superseded:
            LOG.info("task %s ended by itself at the last moment", operation.id)


def _reverted(detail: Any) -> bool:
    """Whether a recorded flow has been reverted, if only in part: then it must not run again."""
    if detail is None:
        return False
    return detail.state == states.REVERTED or any(atom.state == states.REVERT_FAILURE for atom in detail)


def _task_names(flow: Any) -> list[str]:
    names: list[str] = []
    for node, _links in flow.iter_nodes():
        names.extend(_task_names(node) if hasattr(node, "iter_nodes") else [node.name])
    return names
