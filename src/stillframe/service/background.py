"""What comes round by time: jobs that one worker of all is at, and rounds that each process makes for itself.

The loop looks at the jobs on record, claims those whose turn it is, and has each run in a thread of its own, so that
one that hangs keeps no other from its turn. It renews the claims as long as their runs give signs of life.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Final

from stillframe.domain.errors import Conflict, Interrupted, StillframeError, Superseded, Unavailable
from stillframe.engine.attempt import clock
from stillframe.logs.context import about
from stillframe.service.caller import system_caller

if TYPE_CHECKING:
    from stillframe.service.metrics import Metrics
    from stillframe.store.jobs import Guard, JobClaim, JobStore

LOG = logging.getLogger(__name__)

# How soon the loop looks again after something went wrong, and how soon at the earliest when nothing did.
_AGAIN: Final = 1.0
_SOONEST: Final = 0.05


class Job(ABC):
    """Something that one worker of all does every `interval` seconds (0: never here), counted from its last end.

    `hang_seconds`: how long a run may go on without a `Run.check`; then it hangs, and another worker may begin anew.
    """

    name: ClassVar[str]
    interval: float
    hang_seconds: float

    @abstractmethod
    def run(self, run: Run) -> Mapping[str, int]:
        """Do it once, and call `run.check` between two steps; what was counted, by name, is kept on record.

        A worker may die in the middle of it, and another one begins it anew.
        """


class Round(ABC):
    """Something that each process does for itself, at its start and every `interval` seconds from then on."""

    name: ClassVar[str]
    interval: float

    @abstractmethod
    def go(self, check: Callable[[], None]) -> None:
        """Do it once; `check` raises `Interrupted` once the service ends."""


class RunOutcome(StrEnum):
    """How a run ended; `HUNG` runs have not, and may never."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    SUPERSEDED = "superseded"
    HUNG = "hung"


class Run:
    """One run of a job: who acts in it, and whether it may go on.

    `guard`: for transactions that must not be made once another worker has taken the job over.
    """

    def __init__(self, job: Job, claim: JobClaim, guard: Guard, ending: Callable[[], bool]) -> None:
        self.job = job
        self.claim = claim
        self.guard = guard
        self.caller = system_caller(job.name, f"req-{uuid.uuid4()}")
        self.alive_at = clock()
        self.lost = False
        # What its end has to be noted as, where that could not be noted yet.
        self.unsettled: _End | None = None
        self.renewed_at = self._holds_until = float("-inf")
        self._ending = ending

    def check(self) -> None:
        """Give a sign of life; raises `Interrupted` where the service ends, `Superseded` if the claim may be lost."""
        self.alive_at = clock()
        if self._ending():
            raise Interrupted("The service is ending.")
        if self.lost or self.alive_at > self._holds_until:
            raise Superseded(f"Job {self.job.name} may have been taken over by another worker.")

    def prolong(self, asked_at: float, seconds: float) -> None:
        """The claim was made or renewed by a request of that moment."""
        self.renewed_at, self._holds_until = asked_at, asked_at + seconds


@dataclass(frozen=True, slots=True)
class _End:
    outcome: RunOutcome
    counts: Mapping[str, int] | None = None


class Background:
    """The periodic loop of one worker; nothing of it keeps the process from ending.

    `seconds`: how long a claim holds without being renewed. `alone`: no other process works on this store, so that
    every claim found at the start is a dead one's.
    """

    def __init__(  # it is made in one place, of what there is
        self,
        store: JobStore,
        metrics: Metrics,
        worker: str,
        seconds: float,
        jobs: Sequence[Job],
        rounds: Sequence[Round],
        *,
        alone: bool,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._worker = worker
        self._seconds = seconds
        self._jobs = {job.name: job for job in jobs}
        self._alone = alone
        self._noted = False
        self._running: dict[str, Run] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._runs: list[threading.Thread] = []
        self._threads = [threading.Thread(target=self._loop, name="background", daemon=True)] + [
            threading.Thread(target=self._go_round, args=(one,), name=one.name, daemon=True) for one in rounds
        ]
        for name, job in self._jobs.items():
            if job.interval:
                metrics.expect_job(name)

    def start(self) -> None:
        """Begin the rounds at once, and the jobs in their turns."""
        try:
            if self._alone:
                self._store.put_all_back()
            self._note()
        except StillframeError as error:
            LOG.warning("the jobs are put on record later: %s", error)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin nothing more; what is under way is broken off at its next step, or comes to its end."""
        self._stopping.set()
        self._wake.set()

    def ended(self, seconds: float) -> bool:
        """Whether nothing of it runs any more, waited for so long."""
        until = time.monotonic() + seconds
        # The loop first: until it has ended, there may be one more run.
        return _joined(self._threads, until) and _joined(self._runs, until)

    def run(self, name: str) -> RunOutcome:
        """Have a job done now, whether it is its turn or not; raises `Conflict` where somebody is at it."""
        self._note()
        run = self._claimed(self._jobs[name], 0.0)
        if run is None:
            raise Conflict(f"Job {name} is being done already; wait for its end.")
        return self._carry_out(run)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                wait = self._look()
            except StillframeError as error:
                LOG.warning("the jobs are looked at again: %s", error)
                wait = _AGAIN
            except Exception:
                LOG.exception("looking at the jobs broke off; it is tried again")
                wait = _AGAIN
            self._wake.wait(wait)
            self._wake.clear()

    def _look(self) -> float:
        """Do all that is to be done now; in how many seconds there may be more."""
        for run in self._at_work():
            self._look_after(run)
        self._note()
        records, now = self._store.look()
        running = {run.job.name for run in self._at_work()}
        # A claim has to be renewed several times while it holds, and those of others run out.
        wait = self._seconds / 4
        for record in records:
            job = self._jobs.get(record.name)
            if job is None or not job.interval or job.name in running:
                continue
            waits = record.waits(now, job.interval)
            if waits <= 0 and not self._stopping.is_set():
                self._begin(job)
            wait = min(wait, waits if waits > 0 else job.interval)
        return max(wait, _SOONEST)

    def _note(self) -> None:
        if not self._noted:
            self._store.note({name: job.interval for name, job in self._jobs.items()})
            self._noted = True

    def _at_work(self) -> list[Run]:
        with self._lock:
            return list(self._running.values())

    def _look_after(self, run: Run) -> None:
        if run.unsettled is not None:
            self._settle(run, run.unsettled)
        elif run.lost:
            return
        elif clock() - run.alive_at > run.job.hang_seconds:
            run.lost = True
            LOG.error("job %s hangs; its claim is left to run out, for another worker", run.job.name)
            self._metrics.job_ended(run.job.name, RunOutcome.HUNG)
        elif clock() - run.renewed_at >= self._seconds / 4:
            asked_at = clock()
            if self._store.renew(run.claim, self._seconds):
                run.prolong(asked_at, self._seconds)
            else:
                run.lost = True

    def _begin(self, job: Job) -> None:
        run = self._claimed(job, job.interval)
        if run is None:
            return
        thread = threading.Thread(target=self._carry_out, args=(run,), name=job.name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            LOG.exception("there is no thread for job %s", job.name)
            self._settle(run, _End(RunOutcome.INTERRUPTED))
            return
        self._runs = [*(one for one in self._runs if one.is_alive()), thread]

    def _claimed(self, job: Job, interval: float) -> Run | None:
        asked_at = clock()
        claim = self._store.claim(job.name, self._worker, self._seconds, interval)
        if claim is None:
            return None
        run = Run(job, claim, self._store.guard(claim), self._stopping.is_set)
        run.prolong(asked_at, self._seconds)
        with self._lock:
            # One that hangs here, its claim lost, is still there: threads must not pile up.
            hangs = self._running.setdefault(job.name, run) is not run
        if hangs:
            self._store.put_back(claim)
            return None
        return run

    def _carry_out(self, run: Run) -> RunOutcome:
        end = _End(RunOutcome.INTERRUPTED)
        with about(run.caller.request_id, user=run.caller.user_id):
            try:
                end = _end_of(run)
            finally:
                outcome = self._settle(run, end)
        return outcome

    def _settle(self, run: Run, end: _End) -> RunOutcome:
        """Note the end of a run; where the database does not answer, the loop tries again."""
        outcome, name = end.outcome, run.job.name
        try:
            if outcome in (RunOutcome.SUCCEEDED, RunOutcome.FAILED):
                if not self._store.end(run.claim, end.counts):
                    LOG.warning("job %s was taken over by another worker before it ended", name)
                    outcome = RunOutcome.SUPERSEDED
            else:
                self._store.put_back(run.claim)
        except Unavailable as error:
            LOG.warning("that job %s has %s is put on record later: %s", name, outcome, error)
            run.unsettled = end
            self._wake.set()
            return outcome
        except Exception:
            LOG.exception("that job %s has %s could not be put on record; it is done again", name, outcome)
        with self._lock:
            self._running.pop(name, None)
        self._metrics.job_ended(name, outcome)
        self._wake.set()
        return outcome

    def _check(self) -> None:
        if self._stopping.is_set():
            raise Interrupted("The service is ending.")

    def _go_round(self, one: Round) -> None:
        while not self._stopping.is_set():
            with about(f"req-{uuid.uuid4()}"):
                try:
                    one.go(self._check)
                except Interrupted:
                    return
                except StillframeError as error:
                    LOG.warning("the %s tries again: %s", one.name, error)
                except Exception:
                    LOG.exception("the %s failed; it tries again", one.name)
            self._stopping.wait(one.interval)


def _joined(threads: Sequence[threading.Thread], until: float) -> bool:
    begun = [thread for thread in threads if thread.ident is not None]
    for thread in begun:
        thread.join(max(0.0, until - time.monotonic()))
    return not any(thread.is_alive() for thread in begun)


def _end_of(run: Run) -> _End:
    """Do the job, and say how that ended."""
    name = run.job.name
    try:
        return _End(RunOutcome.SUCCEEDED, run.job.run(run))
    except Superseded as error:
        LOG.warning("job %s was broken off: %s", name, error)
        return _End(RunOutcome.SUPERSEDED)
    except Interrupted:
        LOG.info("job %s was broken off, for the service ends", name)
        return _End(RunOutcome.INTERRUPTED)
    except Unavailable as error:
        LOG.warning("job %s failed; it goes on at its next turn: %s", name, error.in_full())
    except Exception:
        LOG.exception("job %s failed; it goes on at its next turn", name)
    return _End(RunOutcome.FAILED)
