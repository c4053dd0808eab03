"""The engine: takes operations up, runs their flows in threads, and settles what cannot settle itself."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

from stillframe.domain.errors import NotFound, StillframeError, Superseded, Unavailable
from stillframe.domain.operation import Operation
from stillframe.engine.attempt import RunningAttempt, clock
from stillframe.engine.board import Board
from stillframe.engine.execution import Execution
from stillframe.engine.work import Ledger, Presence, Queue, Witness
from stillframe.logs.context import about

LOG = logging.getLogger(__name__)

_LOOK_EVERY: Final = 1.0
_NEWS_AFTER: Final = 0.2
_GRACE: Final = timedelta(seconds=10)
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 300.0
_AFTER_OUR_END: Final = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is done at a time, how long a claim holds without being renewed, and how long records are kept.

    `hang_seconds`: how long a call may hang past the deadline of its operation until it is given up. `alone`: no other
    process works on this store, so that every claim found at the start is a dead one's.
    """

    workers: int
    claim_seconds: float
    look_seconds: float
    keep_records: timedelta
    hang_seconds: float
    alone: bool


class Engine:
    """Runs every operation that is not final, each once at a time, until it is.

    Nothing is lost with the process: what was accepted is in the store, what was done is in the flow books, and
    whoever takes an operation up next, here or elsewhere, goes on from there.
    """

    def __init__(
        self,
        ledger: Ledger,
        queue: Queue,
        presence: Presence,
        witness: Witness,
        board: Board,
        execution: Execution,
        limits: Limits,
    ) -> None:
        self._ledger = ledger
        self._queue = queue
        self._presence = presence
        self._witness = witness
        self._board = board
        self._execution = execution
        self._limits = limits
        # A name that no later start has: claims of a process that is gone must not be prolonged.
        self.worker = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4()}"
        self._running: dict[str, RunningAttempt] = {}
        # Attempts whose call still hangs although it was given up: there is a thread in it, and nothing else.
        self._abandoned: list[RunningAttempt] = []
        self.on_abandoned: Callable[[], None] = lambda: None
        # Where the last attempt at an open operation broke off for reasons of ours.
        self._broken: dict[str, str] = {}
        self._renewed = True
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._leaving = threading.Event()
        self._stopping = threading.Event()
        # Something has come to its end, which an older state of the database would not know.
        self._news = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(wait, act), name=name, daemon=True)
            for name, wait, act in (
                ("taker", self._wait_for_work, self._take_up),
                ("heartbeat", partial(self._stopping.wait, limits.claim_seconds / 4), self._beat),
                ("witness", self._wait_for_news, self._bear_witness),
                ("overseer", partial(self._stopping.wait, _LOOK_EVERY), self._oversee),
            )
        ]

    def start(self) -> None:
        """Take up what is unfinished, and whatever is accepted from then on.

        Raises `OlderDatabase` where the database is another one than before, and `Damaged` where that cannot be told.
        """
        # What is open in an older state of the database must not be taken up.
        self._witness.note()
        if self._limits.alone:
            self._queue.put_all_back()
        self.sweep()
        self._presence.note(self.worker)
        self._wake.set()
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float) -> bool:
        """Take nothing more up, hand on what stops between two tasks, and wait for the rest; False if some still runs.

        Another worker, or the next start, goes on with what was handed on at once, and with what still runs soon.
        """
        self._stopping.set()
        self._wake.set()
        self._news.set()
        self._execution.suspend()
        until = time.monotonic() + seconds
        while time.monotonic() < until and self._attempts():
            time.sleep(0.05)
        self._execution.close()
        left = self._attempts()
        for attempt in left:
            # It is us who break it off, so that does not count against it.
            try:
                self._queue.put_back(attempt.operation, _AFTER_OUR_END, counted=False)
            except Unavailable as error:
                LOG.warning("task %s is taken up once its claim has run out: %s", attempt.operation.id, error)
        self._board.close()
        self._take_leave()
        with self._lock:
            return not left and not self._abandoned

    def _take_leave(self) -> None:
        if self._threads[0].ident is None:
            return
        try:
            self._presence.forget(self.worker)
        except Unavailable as error:
            LOG.warning("that this worker ends is not on record: %s", error)
        self._bear_witness()

    def leave(self, seconds: float) -> None:
        """Take nothing more up, and hand on what stops between two tasks; returns when nothing runs but what hangs.

        That is waited for so many seconds at most. Claims are renewed meanwhile, so that nobody else does the same.
        """
        self._leaving.set()
        self._execution.suspend()
        until = time.monotonic() + seconds
        while time.monotonic() < until and any(attempt.hung_at is None for attempt in self._attempts()):
            self._stopping.wait(0.05)

    def hung(self) -> int:
        """How many calls hang in this process past the deadlines of their operations."""
        with self._lock:
            waited_for = [attempt for attempt in self._running.values() if attempt.hung_at is not None]
            return len(waited_for) + len(self._abandoned)

    def submit(self, operation_id: str) -> None:
        """Tell the workers, this one and others, that there is an operation for them."""
        self._board.announce(operation_id)
        self._wake.set()

    def _attempts(self) -> list[RunningAttempt]:
        with self._lock:
            return list(self._running.values())

    def _repeat(self, wait: Callable[[], object], act: Callable[[], None]) -> None:
        while True:
            wait()
            if self._stopping.is_set():
                return
            try:
                act()
            except Unavailable as error:
                LOG.warning("the %s tries again: %s", threading.current_thread().name, error)
                self._stopping.wait(_LOOK_EVERY)
            except Exception:
                LOG.exception("the %s failed; it tries again", threading.current_thread().name)
                self._stopping.wait(_LOOK_EVERY)

    def _wait_for_news(self) -> None:
        """Until something has ended, or for as long as between two heartbeats; not more often than so often."""
        self._stopping.wait(_NEWS_AFTER)
        self._news.wait(self._limits.claim_seconds / 4)
        self._news.clear()

    def _bear_witness(self) -> None:
        try:
            self._witness.note()
        except StillframeError as error:
            LOG.error("nothing is taken up: %s", error.in_full())  # noqa: TRY400  # its message says it all

    def _wait_for_work(self) -> None:
        self._board.wait(self._wake, self._limits.look_seconds)

    def _take_up(self) -> None:
        self._wake.clear()
        if not self._renewed or self._leaving.is_set():
            return
        running = [attempt.operation.id for attempt in self._attempts()]
        asked_at = clock()
        # What an attempt of ours has lost while it hangs is for another worker to take.
        for operation in self._queue.take(
            self.worker, self._limits.workers - len(running), self._limits.claim_seconds, without=running
        ):
            self._begin(self._note(operation, asked_at), self._run)

    def _begin(self, attempt: RunningAttempt, act: Callable[[RunningAttempt], None]) -> None:
        """Do something about an attempt in a thread of its own: one that hangs takes no other's place."""

        def run() -> None:
            with about(attempt.operation.request_id, attempt.operation.id):
                act(attempt)

        try:
            if not self._stopping.is_set():
                threading.Thread(target=run, name="operation", daemon=True).start()
                return
        except RuntimeError:
            LOG.exception("there is no thread for task %s", attempt.operation.id)
        self._let_go(attempt)
        self._queue.put_back(attempt.operation, counted=False)

    def _note(self, operation: Operation, asked_at: float) -> RunningAttempt:
        attempt = RunningAttempt(operation, self._queue, self._execution.now, asked_at, self._limits.claim_seconds)
        with self._lock:
            self._running[operation.id] = attempt
        self._board.taken(operation.id)
        return attempt

    def _let_go(self, attempt: RunningAttempt) -> None:
        with self._lock:
            if self._running.get(attempt.operation.id) is attempt:
                del self._running[attempt.operation.id]
            if attempt in self._abandoned:
                self._abandoned.remove(attempt)
        self._wake.set()

    def _run(self, attempt: RunningAttempt) -> None:
        operation = attempt.operation
        wait, counted = 0.0, True
        try:
            self._execution.run(attempt)
            # Unless it is final now, it was told to stop between two tasks.
            counted = False
        except Superseded as error:
            # Of a call that had been given up it is told that it has returned.
            if attempt not in self._abandoned:
                LOG.warning("task %s is left to whoever has it now: %s", operation.id, error)
        except Exception as error:  # noqa: BLE001  # told by what looks into it
            wait = min(_FIRST_WAIT * 2 ** (operation.attempts - 1), _LONGEST_WAIT)
            self._break_off(attempt, error)
        finally:
            self._end(attempt, wait, counted=counted)

    def _break_off(self, attempt: RunningAttempt, error: Exception) -> None:
        """Leave an operation to its next attempt, here or elsewhere; but not what breaks off in the same way again."""
        operation = attempt.operation
        if attempt in self._abandoned:
            return
        if isinstance(error, Unavailable):
            LOG.warning("task %s: the attempt broke off: %s", operation.id, error.in_full())
            return
        LOG.error("task %s: the attempt broke off", operation.id, exc_info=error)
        if self._broken.get(operation.id) != _place(error):
            self._broken[operation.id] = _place(error)
            return
        try:
            self._execution.give_up(attempt, "it broke off in the same way twice; the service's log says where.")
        except Exception:
            LOG.exception("task %s could not be given up", operation.id)

    def _end(self, attempt: RunningAttempt, wait: float, *, counted: bool) -> None:
        """Close the books of what is final, and give the claim of anything else back."""
        operation_id = attempt.operation.id
        try:
            if attempt in self._abandoned:
                LOG.warning("task %s: the call that had been given up has returned", operation_id)
                return
            if self._execution.close_books(operation_id):
                self._news.set()
                self._ledger.free_settled(operation_id)
                self._board.done(operation_id)
                self._broken.pop(operation_id, None)
            else:
                self._queue.put_back(attempt.operation, wait, counted=counted)
                self._board.put_back(operation_id)
        except Exception:
            LOG.exception("task %s: its books could not be closed; a later sweep does it", operation_id)
        finally:
            self._let_go(attempt)

    def _beat(self) -> None:
        self._renew()
        self._presence.note(self.worker)
        self._broken = {
            operation_id: place for operation_id, place in self._broken.items() if self._is_open(operation_id)
        }

    def _renew(self) -> None:
        attempts = {attempt.operation.id: attempt for attempt in self._attempts()}
        if not attempts:
            self._renewed = True
            return
        asked_at = clock()
        try:
            held = self._queue.renew([attempt.operation for attempt in attempts.values()], self._limits.claim_seconds)
        except StillframeError:
            # Who cannot renew what it has takes nothing more.
            self._renewed = False
            raise
        for operation_id in held:
            attempts[operation_id].prolong(asked_at)
        self._renewed = True
        self._board.renew(held)

    def _oversee(self) -> None:
        self._look_after_late_ones()
        late = self._execution.now() - _GRACE
        for attempt in self._attempts():
            if attempt.hung_at is None and attempt.operation.deadline < late:
                # Whoever has settled it: another worker does so too, if the claim has passed on to it.
                attempt.hung_at = clock()
            if attempt.hung_at is not None and clock() - attempt.hung_at > self._limits.hang_seconds:
                with about(attempt.operation.request_id, attempt.operation.id):
                    self._abandon(attempt)

    def _abandon(self, attempt: RunningAttempt) -> None:
        """Give up a call that hangs: the instance is free again, and what the call does later changes nothing of ours.

        Its thread cannot be ended; only the end of the process does that.
        """
        operation = attempt.operation
        self._queue.abandon(operation)
        with self._lock:
            if self._running.get(operation.id) is not attempt:
                return
            del self._running[operation.id]
            self._abandoned.append(attempt)
        LOG.error("task %s: a call that hangs is given up, and its instance is free", operation.id)
        self._execution.replace_threads()
        self.on_abandoned()
        self._wake.set()
        self._execution.close_books(operation.id)
        self._board.done(operation.id)

    def _look_after_late_ones(self) -> None:
        """Fail what is past its deadline because it hangs here, or because no worker was free for it."""
        for operation in self._ledger.overdue(self._execution.now() - _GRACE):
            try:
                with about(operation.request_id, operation.id):
                    self._look_after_late(operation)
            except Exception:
                # One operation that cannot be looked after must not keep the others from it.
                LOG.exception("task %s is late and could not be looked after", operation.id)

    def _look_after_late(self, operation: Operation) -> None:
        with self._lock:
            attempt = self._running.get(operation.id)
        if attempt is not None:
            if not attempt.settling:
                self._execution.fail_late(attempt, self._limits.hang_seconds)
            return
        asked_at = clock()
        claimed = self._queue.claim(operation.id, self.worker, self._limits.claim_seconds)
        if claimed is None:
            return
        attempt = self._note(claimed, asked_at)
        attempt.settling = True
        # That asks the platform, which may be what hangs.
        self._begin(attempt, self._settle)

    def _settle(self, attempt: RunningAttempt) -> None:
        try:
            self._execution.fail_late(attempt, None)
        except Exception:
            LOG.exception("task %s is late and could not be settled", attempt.operation.id)
        finally:
            self._end(attempt, _FIRST_WAIT, counted=True)

    def _is_open(self, operation_id: str) -> bool:
        try:
            return not self._ledger.get(operation_id).state.final
        except NotFound:
            return False

    def sweep(self, check: Callable[[], None] = lambda: None, guard: Callable[[Any], None] = lambda _: None) -> None:
        """Close the books that a killed process left open, give back the instances of what is settled, forget records.

        `check` is called between two steps, and `guard` in the transaction that forgets; both may raise `Interrupted`.
        """
        running = {attempt.operation.id for attempt in self._attempts()}
        for operation_id in self._execution.books.ids():
            check()
            if operation_id in running:
                continue
            try:
                self._execution.close_books(operation_id)
            except NotFound:
                self._execution.books.drop(operation_id)
        self._ledger.free_settled()
        for operation_id in self._ledger.forget_finished(self._execution.now() - self._limits.keep_records, guard):
            self._execution.books.drop(operation_id)


def _place(error: Exception) -> str:
    """Which error it was, and the line it came from."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    return f"{type(error).__qualname__} {[(frame.filename, frame.lineno) for frame in last]}"
