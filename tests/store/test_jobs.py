"""Claims on what comes round by time: one worker has a job, as long as the database's clock says, and once a turn."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from stillframe.domain.errors import Superseded
from stillframe.domain.job import JobRecord
from stillframe.store.jobs import JobClaim, JobStore
from stillframe.store.tables import JOBS

if TYPE_CHECKING:
    from tests.store.conftest import Store

NOON = datetime(2026, 11, 26, 12)  # noqa: DTZ001  # as the store has it
HOUR = timedelta(hours=1)
NAME = "janitor"


@pytest.fixture
def jobs(store: Store) -> JobStore:
    jobs = JobStore(store.database)
    jobs.note({NAME: 3600.0})
    return jobs


def claimed(jobs: JobStore, seconds: float = 30.0) -> JobClaim:
    claim = jobs.claim(NAME, "first", seconds, 0.0)
    assert claim is not None
    return claim


def shift(store: Store, by: timedelta) -> None:
    """Set all times on record, as if the clock had been set the other way."""
    times = ("known_since", "ended_at", "renewed_at", "claimed_until")
    with store.database.writing() as connection:
        row = connection.execute(sa.select(JOBS)).mappings().one()
        moved = {name: row[name] + by for name in times if row[name] is not None}
        connection.execute(sa.update(JOBS).values(**moved))


RECORD = JobRecord(NAME, 3600.0, NOON)
CLAIMED = JobRecord(
    NAME, 3600.0, NOON - 2 * HOUR, renewed_at=NOON, claimed_until=NOON + timedelta(seconds=30), worker="w"
)


@pytest.mark.parametrize(
    ("record", "passed", "waits"),
    [
        (RECORD, 0, 3600),
        (RECORD, 3599, 1),
        (RECORD, 3600, 0),
        # A clock that was set back a little costs a little, and one that was set back far nothing.
        (RECORD, -1, 3601),
        (RECORD, -3600, 0),
        (RECORD, -86400, 0),
        (CLAIMED, 0, 30),
        (CLAIMED, 29, 1),
        (CLAIMED, 30, 0),
        (CLAIMED, -29, 59),
        (CLAIMED, -30, 0),
    ],
)
def test_a_turn_and_a_claim_end_by_the_clock_and_whatever_befalls_it(
    record: JobRecord, passed: float, waits: float
) -> None:
    assert record.waits(NOON + timedelta(seconds=passed), 3600.0) == waits


def test_a_job_is_overdue_since_its_last_run_that_ended_well() -> None:
    failing = JobRecord(NAME, 3600.0, NOON - 5 * HOUR, ended_at=NOON, succeeded_at=NOON - 3 * HOUR)
    assert failing.overdue(NOON) == 7200.0
    assert JobRecord(NAME, 3600.0, NOON - 5 * HOUR).overdue(NOON) == 4 * 3600.0
    assert JobRecord(NAME, 0.0, NOON - 5 * HOUR).overdue(NOON) == 0.0
    assert RECORD.overdue(NOON) == 0.0


def test_one_of_many_workers_gets_a_job(store: Store, jobs: JobStore) -> None:
    gate = threading.Barrier(8)

    def claim(number: int) -> JobClaim | None:
        gate.wait()
        return JobStore(store.database).claim(NAME, f"w{number}", 30.0, 0.0)

    for _turn in range(5):
        with ThreadPoolExecutor(8) as pool:
            (won,) = [found for found in pool.map(claim, range(8)) if found is not None]
        assert jobs.end(won, {})


def test_many_workers_put_a_job_on_record_once(store: Store) -> None:
    gate = threading.Barrier(8)

    def note(_number: int) -> None:
        gate.wait()
        JobStore(store.database).note({"one": 1.0, "other": 2.0})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(note, range(8)))
    assert [(job.name, job.interval) for job in JobStore(store.database).all()] == [("one", 1.0), ("other", 2.0)]


def test_a_turn_is_over_for_all_workers(jobs: JobStore) -> None:
    assert jobs.claim(NAME, "first", 30.0, 3600.0) is None
    assert jobs.end(claimed(jobs), {"found": 2})
    (record,) = jobs.all()
    assert (record.counts, record.worker, record.ended_at) == ({"found": 2}, None, record.succeeded_at)
    assert jobs.claim(NAME, "second", 30.0, 3600.0) is None
    assert jobs.claim(NAME, "second", 30.0, 0.0) is not None


def test_what_a_run_could_not_count_stays_as_it_was(jobs: JobStore) -> None:
    jobs.end(claimed(jobs), {"lost": 1, "unsure": 2})
    jobs.end(claimed(jobs), {"unsure": 3})
    jobs.end(claimed(jobs), None)
    (record,) = jobs.all()
    assert record.counts == {"lost": 1, "unsure": 3}
    assert record.succeeded_at is not None
    assert record.ended_at is not None
    assert record.ended_at >= record.succeeded_at


def test_who_comes_back_after_the_claim_was_taken_over_changes_nothing(store: Store, jobs: JobStore) -> None:
    late = claimed(jobs, seconds=0.0)
    taken = claimed(jobs)
    assert not jobs.renew(late, 30.0)
    assert not jobs.end(late, {"found": 9})
    jobs.put_back(late)
    guard = JobStore.guard(late)
    with pytest.raises(Superseded), store.database.writing() as connection:
        guard(connection)
    with store.database.writing() as connection:
        JobStore.guard(taken)(connection)
    assert jobs.claim(NAME, "third", 30.0, 0.0) is None
    assert jobs.end(taken, {"found": 1})
    assert jobs.all()[0].counts == {"found": 1}


def test_a_claim_that_ran_out_and_nobody_took_holds_again(jobs: JobStore) -> None:
    claim = claimed(jobs, seconds=0.0)
    assert jobs.renew(claim, 30.0)
    assert jobs.claim(NAME, "second", 30.0, 0.0) is None


def test_an_older_state_that_is_put_back_gives_no_claim_to_who_has_an_earlier_one(store: Store, jobs: JobStore) -> None:
    with store.database.reading() as connection:
        before = dict(connection.execute(sa.select(JOBS)).mappings().one())
    earlier = claimed(jobs)
    with store.database.writing() as connection:
        connection.execute(sa.update(JOBS).values(**before))
    claimed(jobs)
    assert not jobs.renew(earlier, 30.0)


@pytest.mark.parametrize("hours", [-48, 48])
def test_a_job_goes_on_when_the_databases_clock_was_set(store: Store, jobs: JobStore, hours: int) -> None:
    jobs.end(claimed(jobs), {})
    claimed(jobs)
    shift(store, hours * HOUR)
    assert jobs.claim(NAME, "second", 30.0, 3600.0) is not None


def test_a_transaction_of_the_claims_is_not_overtaken(store: Store, jobs: JobStore) -> None:
    if store.database.is_file:
        pytest.skip("a file has one writer at a time")
    claim = claimed(jobs, seconds=0.0)
    with ThreadPoolExecutor(1) as pool:
        with store.database.writing() as connection:
            JobStore.guard(claim)(connection)
            taking = pool.submit(jobs.claim, NAME, "second", 30.0, 0.0)
            with pytest.raises(TimeoutError):
                taking.result(0.3)
        assert taking.result(60) is not None
