"""Several workers on one database: one that goes silent, one that is told to stop, and limits that hold for all."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from stillframe import main
from stillframe.settings.limits import OperationLimits
from stillframe.store.database import connect
from tests.databases import database_url, mariadb_server, postgresql_server
from tests.harness.faults import wait_until
from tests.harness.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["database_url", "mariadb_server", "postgresql_server"]

RENEWAL = "UPDATE operations SET claimed_until"


@pytest.fixture(params=["postgresql", "mariadb"])
def server_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(database_url: sa.URL) -> sa.URL:
    """A server's database at this release's schema."""
    opened = connect(database_url.render_as_string(hide_password=False))
    main.upgrade_database(opened)
    opened.close()
    return database_url


@pytest.fixture
def pair(tmp_path: Path, url: sa.URL) -> Iterator[tuple[World, World]]:
    """Two workers; the second takes nothing up yet."""
    first = World(tmp_path, url, workers=2, claim_seconds=2)
    second = first.another_worker()
    second.stop()
    yield first, second
    first.faults.mend()
    second.faults.mend()
    first.stop()
    second.stop()


@pytest.mark.parametrize("call", ["cut", "restore", "stop", "delete"])
def test_a_worker_whose_claim_has_passed_on_begins_no_call_any_more(
    pair: tuple[World, World], call: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = pair
    first.write(b"before")
    snapshot_id = first.create()
    first.write(b"later")
    gate = first.faults.hold(call)
    task = first.begin("restore", snapshot_id, force=True)
    gate.arrived()
    with first.broken_store(RENEWAL):
        second.start_anew()
        second.settle()
        assert second.show(snapshot_id)["status"] == "available"
        assert second.read() == [b"before", b"before"]
        second.write(b"the guest goes on")
        made = len(first.faults.calls)
        caplog.clear()
        gate.let_go()
        wait_until(lambda: first.stop(0.1), "the call that was let go did not end")
    # It is nothing unexpected: a line of ours says so, and neither we nor the engine's library tell of a failure.
    assert [one.getMessage() for one in caplog.records if one.levelno > logging.WARNING] == []
    task_id = first.operation(snapshot_id)["id"]
    assert len([one for one in caplog.records if f"task {task_id} is left to" in one.getMessage()]) == 1
    # The call that was under way ends; with an idempotent name it does nothing new, and after it there is no other.
    assert [one for one in first.faults.calls[made:] if one in ("cut", "restore", "start", "stop", "delete")] == []
    assert second.show(snapshot_id)["status"] == "available"
    assert second.attempts(task) >= 2
    assert second.progress(task)["progress"] == 100
    assert second.copies("safety") == []


def test_a_worker_that_is_told_to_stop_hands_over_between_two_tasks(tmp_path: Path, url: sa.URL) -> None:
    first = World(tmp_path, url, workers=2, claim_seconds=60)
    second = first.another_worker()
    second.stop()
    first.write(b"before")
    snapshot_id = first.create()
    first.write(b"later")
    gate = first.faults.hold("cut")
    task = first.begin("restore", snapshot_id)
    gate.arrived()
    ended: list[bool] = []
    stopping = threading.Thread(target=lambda: ended.append(first.stop(20)))
    stopping.start()
    time.sleep(0.2)
    gate.let_go()
    stopping.join()
    assert ended == [True]
    assert "restore" not in first.faults.calls
    second.start_anew()
    begun = time.monotonic()
    second.settle()
    # Nobody had to wait for the end of the claim.
    assert time.monotonic() - begun < 30
    assert second.show(snapshot_id)["status"] == "available"
    assert second.read() == [b"before", b"before"]
    assert "cut" not in second.faults.calls
    assert second.attempts(task) == 1
    second.stop()


def test_a_limit_holds_over_two_workers_and_who_waits_sees_its_place(tmp_path: Path, url: sa.URL) -> None:
    first = World(tmp_path, url, OperationLimits(project=1), workers=2)
    second = first.another_worker()
    gates = [world.faults.hold("complete") for world in (first, second)]
    others = [first.driver.add_instance("demo", f"other{number}", [1024]) for number in range(2)]
    tasks = [first.begin_create(instance)[1] for instance in (first.instance, *others)]
    wait_until(lambda: "queue_position" not in first.progress(tasks[0]), "the first was never taken up")
    time.sleep(1.5)
    assert [first.progress(task).get("queue_position") for task in tasks] == [None, 1, 2]
    for gate in gates:
        gate.let_go()
    first.settle()
    assert [first.progress(task)["progress"] for task in tasks] == [100, 100, 100]
    first.stop()
    second.stop()


def test_what_nobody_was_told_of_is_found(tmp_path: Path, url: sa.URL) -> None:
    api = World(tmp_path, url)
    api.stop()
    worker = api.another_worker()
    # The service that accepts is not running, hence tells nobody.
    snapshot_id, _task = api.begin_create()
    worker.settle()
    assert worker.show(snapshot_id)["status"] == "available"
    worker.stop()
