"""What comes round by time: one worker of all does it, once a turn, whatever befalls the one that was at it."""

from __future__ import annotations

import itertools
import multiprocessing
import threading
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from stillframe.cli import health
from stillframe.domain.errors import Conflict, StillframeError, Superseded
from stillframe.drivers.finding import Level
from stillframe.service.background import Background, Job, Round, RunOutcome
from stillframe.service.held_guests import HeldGuests
from stillframe.service.metrics import Metrics, Sources
from stillframe.store.clock import utc_now
from stillframe.store.database import Database, connect
from stillframe.store.jobs import JobStore
from stillframe.store.tables import JOBS
from tests.databases import database, database_url, mariadb_server, postgresql_server, server_kind
from tests.harness.faults import PATIENCE, wait_until
from tests.store.conftest import migrated, store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from stillframe.service.background import Run
    from tests.store.conftest import Store

__all__ = ["database", "database_url", "mariadb_server", "migrated", "postgresql_server", "server_kind", "store"]


class Counted(Job):
    """Notes when each of its runs begins and ends, by the database's clock."""

    name = "counted"

    def __init__(self, database: Database, act: Callable[[Run], None], interval: float = 0.2) -> None:
        self._database = database
        self._act = act
        self.interval = interval
        self.hang_seconds = PATIENCE
        self.runs: list[tuple[datetime, datetime]] = []

    def run(self, run: Run) -> Mapping[str, int]:
        run.check()
        began = self._now()
        self._act(run)
        self.runs.append((began, self._now()))
        return {"runs": len(self.runs)}

    def _now(self) -> datetime:
        with self._database.reading() as connection:
            return utc_now(connection)


class Other(Counted):
    name = "other"


class Beat(Round):
    name = "beat"
    interval = 0.05

    def __init__(self) -> None:
        self.times = 0

    def go(self, check: Callable[[], None]) -> None:
        check()
        self.times += 1
        raise StillframeError("it is not to end by this")


class Worker:
    """The loop of one worker."""

    def __init__(self, database: Database, name: str, jobs: Sequence[Job], *rounds: Round, seconds: float) -> None:
        self.registry = CollectorRegistry()
        nothing: Any = cast("Any", lambda: 0)
        sources = Sources(
            *(nothing, nothing, nothing, HeldGuests(tuple), lambda: False, nothing, nothing, nothing, nothing),
            *(nothing, nothing, nothing, nothing),
        )
        metrics = Metrics(self.registry, sources)
        store = JobStore(database)
        self.loop = Background(store, metrics, name, seconds, jobs, rounds, alone=False)

    def counted(self, outcome: RunOutcome, name: str = Counted.name) -> float | None:
        return self.registry.get_sample_value("stillframe_job_runs_total", {"name": name, "outcome": outcome.value})


@contextmanager
def at_work(database: Database, *jobs: Job, seconds: float = 1.0, rounds: Sequence[Round] = ()) -> Iterator[Worker]:
    worker = Worker(database, f"worker-{id(jobs)}", jobs, *rounds, seconds=seconds)
    worker.loop.start()
    try:
        yield worker
    finally:
        worker.loop.stop()
        assert worker.loop.ended(PATIENCE)


def pause(_run: Run) -> None:
    threading.Event().wait(0.05)


def test_a_job_of_many_workers_is_done_by_one_at_a_time_and_once_a_turn(store: Store) -> None:
    jobs = [Counted(store.database, pause) for _ in range(4)]
    with ExitStack() as stack:
        workers = [stack.enter_context(at_work(store.database, job, seconds=PATIENCE)) for job in jobs]
        wait_until(lambda: sum(len(job.runs) for job in jobs) >= 8, "the runs did not follow each other")
    runs = sorted(run for job in jobs for run in job.runs)
    for (_, ended), (began, _) in itertools.pairwise(runs):
        # SQLite's clock shows milliseconds.
        assert began - ended >= timedelta(seconds=0.199)
    assert sum(worker.counted(RunOutcome.SUCCEEDED) or 0 for worker in workers) == len(runs)


def work(url: str, began: Any) -> None:
    """What a process does that is killed in the middle of it."""

    def act(_run: Run) -> None:
        began.set()
        threading.Event().wait()

    opened = connect(url)
    with at_work(opened, Counted(opened, act), seconds=4.0):
        threading.Event().wait()


def test_what_a_killed_worker_was_at_is_taken_over(store: Store) -> None:
    spawn = multiprocessing.get_context("spawn")
    began = spawn.Event()
    url = store.database.writer.url.render_as_string(hide_password=False)
    process = spawn.Process(target=work, args=(url, began), daemon=True)
    process.start()
    try:
        assert began.wait(PATIENCE)
        (claimed,) = JobStore(store.database).all()
        wait_until(lambda: JobStore(store.database).all()[0].renewed_at != claimed.renewed_at, "it was not renewed")
        process.kill()
        job = Counted(store.database, pause)
        with at_work(store.database, job):
            wait_until(lambda: bool(job.runs), "nobody took the job over")
    finally:
        process.kill()
        process.join()


def test_a_job_that_hangs_is_left_to_others_and_keeps_no_other_from_its_turn(store: Store) -> None:
    let_go, late = threading.Event(), list[str]()

    def hang(run: Run) -> None:
        assert let_go.wait(PATIENCE)
        try:
            run.check()
        except Superseded:
            late.append("superseded")
            raise

    hangs, beside, taken = (
        Counted(store.database, hang),
        Other(store.database, pause),
        Counted(store.database, pause),
    )
    hangs.hang_seconds = 0.5
    with at_work(store.database, hangs, beside) as first:
        wait_until(lambda: first.counted(RunOutcome.HUNG) == 1, "nobody noticed that it hangs")
        seen = len(beside.runs)
        with at_work(store.database, taken):
            wait_until(lambda: len(taken.runs) > 1 and len(beside.runs) > seen + 1, "the others waited")
            let_go.set()
            wait_until(lambda: (first.counted(RunOutcome.SUPERSEDED) or 0) >= 1, "the late one went on")
    assert late


def test_a_job_that_raises_goes_on_at_its_next_turn(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    fails = itertools.chain([RuntimeError("ours"), StillframeError("known")], itertools.repeat(None))

    def act(_run: Run) -> None:
        error = next(fails)
        if error is not None:
            raise error

    job = Counted(store.database, act)
    with at_work(store.database, job) as worker:
        wait_until(lambda: (worker.counted(RunOutcome.SUCCEEDED) or 0) >= 1, "it did not go on")
    assert worker.counted(RunOutcome.FAILED) == 2
    assert "job counted failed" in caplog.text
    (record,) = JobStore(store.database).all()
    assert record.counts is not None


def test_a_database_that_is_away_for_a_while_costs_no_job_its_turns(store: Store) -> None:
    job, beat = Counted(store.database, lambda _run: None), Beat()
    away = threading.Event()

    def fail(_connection: Any, _cursor: Any, text: str, *_rest: Any) -> None:
        if away.is_set():
            raise sa.exc.OperationalError(text, None, OSError("the test broke the database"))

    engines = {store.database.reader, store.database.writer}
    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", fail)
    try:
        with at_work(store.database, job, rounds=[beat]):
            wait_until(lambda: len(job.runs) > 1, "it was never done")
            away.set()
            beats = beat.times
            wait_until(lambda: beat.times > beats + 20, "the rounds waited for the database")
            away.clear()
            seen = len(job.runs)
            wait_until(lambda: len(job.runs) > seen + 1, "it did not go on")
    finally:
        for engine in engines:
            sa.event.remove(engine, "before_cursor_execute", fail)


def test_what_a_worker_that_ends_was_at_is_begun_by_another_at_once(store: Store) -> None:
    began = threading.Event()

    def act(run: Run) -> None:
        began.set()
        while True:
            run.check()
            threading.Event().wait(0.02)

    with at_work(store.database, Counted(store.database, act), seconds=PATIENCE) as worker:
        assert began.wait(PATIENCE)
        with pytest.raises(Conflict):
            worker.loop.run(Counted.name)
    assert worker.counted(RunOutcome.INTERRUPTED) == 1
    other = Counted(store.database, pause)
    with at_work(store.database, other, seconds=PATIENCE):
        wait_until(lambda: bool(other.runs), "the claim was not given back")


def test_a_run_acts_by_the_name_of_its_job(store: Store) -> None:
    callers = []
    job = Counted(store.database, lambda run: callers.append(run.caller))
    with at_work(store.database, job):
        wait_until(lambda: len(callers) > 1, "it was never done")
    first, second = callers[:2]
    assert (first.user_id, first.roles) == ("stillframe:counted", frozenset())
    assert first.request_id.startswith("req-")
    assert first.request_id != second.request_id


def test_the_doctor_tells_of_a_job_that_is_late(store: Store) -> None:
    jobs = JobStore(store.database)
    jobs.note({"late": 60.0, "off": 0.0, "well": 60.0})
    with store.database.writing() as connection:
        before = utc_now(connection) - timedelta(hours=2)
        connection.execute(sa.update(JOBS).where(JOBS.c.name != "well").values(known_since=before))
    claim = jobs.claim("late", "somebody", PATIENCE, 0.0)
    assert claim is not None
    late, off, well = health.jobs(store.database)
    assert (late.level, off.level, well.level) == (Level.WARN, Level.OK, Level.OK)
    assert "has never ended well" in late.detail
    assert "somebody is at it" in late.detail
    assert jobs.end(claim, {})
    assert [finding.level for finding in health.jobs(store.database)] == [Level.OK] * 3
