"""The janitor at work: what operations left behind goes, and what is somebody's stays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from stillframe import main
from stillframe.domain.errors import BackendError, StillframeError, Unavailable
from stillframe.domain.leftover import LeftoverKind
from stillframe.domain.snapshot import CopyKind, CopyName
from stillframe.drivers.call import Call
from stillframe.service.background import RunOutcome
from stillframe.service.janitor import Janitor
from stillframe.service.leftovers import Leftover, Leftovers, Outcome
from stillframe.store.jobs import JobStore
from stillframe.store.tables import FENCES, JOBS, OPERATIONS
from tests.harness.faults import wait_until
from tests.harness.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

GRACE = 60.0
CALL = Call("late", "req-late", lambda: None, lambda _done, _total: None)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, janitor_grace=timedelta(seconds=GRACE))
    yield world
    world.stop()


def leftovers(world: World) -> Leftovers:
    service = world.service
    return main.build_leftovers(service.settings, service.database, service.drivers, world.clock)


def look(world: World) -> list[Leftover]:
    found = leftovers(world)
    return [one for kind in LeftoverKind for one in found.look(kind)]


def maker(world: World, snapshot_id: str) -> str:
    return str(world.operation(snapshot_id)["id"])


def appear(world: World, snapshot_id: str, operation_id: str, kind: CopyKind = CopyKind.SNAPSHOT) -> None:
    """Let copies of both volumes come into being past all flows, as by a call that came through late."""
    names = [CopyName(kind, snapshot_id, volume, operation_id) for volume in world.instance.volume_ids]
    world.driver.storage.cut(CALL, world.instance, names)


def deleted(world: World) -> tuple[str, str]:
    """A snapshot that has been deleted, and the operation that had made it."""
    snapshot_id = world.create()
    operation_id = maker(world, snapshot_id)
    world.delete(snapshot_id)
    return snapshot_id, operation_id


def sweep(world: World) -> RunOutcome:
    return world.service.background.run(Janitor.name)


def metrics(world: World) -> str:
    return str(world.ask("GET", "/metrics").text)


def test_nothing_is_left_behind_by_operations_that_go_well(world: World) -> None:
    snapshot_id = world.create()
    world.restore(snapshot_id)
    world.create()
    world.clock.jump(GRACE + 1)
    before = dict(world.driver.copies)
    assert look(world) == []
    sweep(world)
    assert world.driver.copies == before


def test_a_copy_that_appears_after_its_deletion_goes_once_it_is_old_enough(world: World) -> None:
    appear(world, *deleted(world))
    sweep(world)
    assert len(world.copies()) == 2
    world.clock.jump(GRACE + 1)
    sweep(world)
    assert world.copies() == []
    assert 'stillframe_leftovers_swept_total{kind="copy",outcome="removed"} 2.0' in metrics(world)
    assert 'stillframe_janitor_sweeps_total{outcome="complete"} 2.0' in metrics(world)


def test_half_made_copies_of_a_failed_creation_go(world: World) -> None:
    world.faults.fail("complete", BackendError("broken"))
    world.faults.fail("delete", BackendError("broken too"))
    snapshot_id = world.create()
    assert world.show(snapshot_id)["status"] == "error"
    world.faults.mend()
    assert len(world.copies()) == 2
    world.clock.jump(GRACE + 1)
    sweep(world)
    assert world.copies() == []
    world.delete(snapshot_id)
    assert world.is_gone(snapshot_id)


def test_safety_copies_of_a_restore_that_ended_go_but_not_those_that_are_shown(world: World) -> None:
    snapshot_id = world.create()
    world.faults.fail("delete", BackendError("broken"))
    shown = world.restore(snapshot_id)
    world.faults.mend()
    assert (shown["status"], len(shown["temp_snapshots"])) == ("available", 2)
    world.clock.jump(GRACE + 1)
    sweep(world)
    assert world.copies("safety") == sorted(world.instance.volume_ids)
    world.restore(snapshot_id)
    appear(world, snapshot_id, maker(world, snapshot_id), CopyKind.SAFETY)
    world.clock.jump(GRACE + 1)
    sweep(world)
    assert world.copies("safety") == []
    assert len(world.copies("snapshot")) == 2


def test_what_a_failed_restore_needs_stays(world: World) -> None:
    snapshot_id = world.restore_error()
    world.clock.jump(GRACE + 1)
    sweep(world)
    assert len(world.copies("safety")) == 2
    assert world.fences() == (snapshot_id, snapshot_id)
    assert world.rollback(snapshot_id)["status"] == "available"
    assert world.read() == [b"later", b"later"]


def test_an_operation_that_runs_keeps_what_it_has_made(world: World) -> None:
    gate = world.faults.hold("complete")
    snapshot_id, _task = world.begin_create()
    gate.arrived()
    world.clock.jump(GRACE + 1)
    sweep(world)
    assert len(world.copies()) == 2
    gate.let_go()
    world.settle()
    assert world.show(snapshot_id)["status"] == "available"


def test_another_service_on_the_same_platform_loses_nothing(world: World, tmp_path: Path) -> None:
    other = World(tmp_path / "other", janitor_grace=timedelta(seconds=GRACE))
    try:
        other.driver, kept = world.driver, other.driver
        other.service.stop()
        other.instance = world.driver.add_instance("demo", "theirs", [1 << 10])
        other.start_anew()
        theirs, ours = other.create(), world.create()
        assert kept.copies == {}
        for clock in (world.clock, other.clock):
            clock.jump(GRACE + 1)
        sweep(world)
        sweep(other)
        assert {copy.name.snapshot_id for copy in world.driver.storage.find(None)} == {theirs, ours}
        assert [(one.about, one.sure) for one in look(world)] == [(theirs, False)]
        assert 'stillframe_leftovers_unsure{kind="copy"} 1.0' in metrics(world)
        (foreign,) = look(world)
        assert leftovers(world).remove(foreign, lambda: None) == (Outcome.REMOVED, "")
        assert {copy.name.snapshot_id for copy in world.driver.storage.find(None)} == {ours}
    finally:
        other.stop()


def test_what_a_store_of_yesterday_does_not_know_is_not_removed(world: World) -> None:
    snapshot_id = world.restore_error()
    restore = maker(world, snapshot_id)
    with world.service.database.writing() as connection:
        connection.execute(sa.delete(OPERATIONS).where(OPERATIONS.c.id == restore))
        connection.exec_driver_sql("UPDATE instance_snapshots SET status = 'available', temp_snapshots = NULL")
    world.clock.jump(GRACE + 1)
    sweep(world)
    assert len(world.copies("safety")) == 2
    assert world.driver.fences == {world.instance.id: snapshot_id}


def test_a_decision_is_made_anew_before_it_is_acted_on(world: World) -> None:
    snapshot_id = world.create()
    world.restore(snapshot_id)
    appear(world, snapshot_id, maker(world, snapshot_id), CopyKind.SAFETY)
    world.clock.jump(GRACE + 1)
    planned = look(world)
    assert len(planned) == 2
    gate = world.faults.hold("restore")
    world.begin("restore", snapshot_id)
    gate.arrived()
    outcomes = [leftovers(world).remove(one, lambda: None) for one in planned]
    # The restore has removed them itself before it took its own.
    assert [outcome for outcome, _why in outcomes] == [Outcome.REMOVED, Outcome.REMOVED]
    assert len(world.copies("safety")) == 2
    gate.let_go()
    world.settle()


def test_a_fence_of_a_snapshot_that_is_gone_goes(world: World) -> None:
    snapshot_id, _operation = deleted(world)
    world.driver.compute.fence(world.instance.id, snapshot_id)
    world.clock.jump(GRACE + 1)
    sweep(world)
    assert world.fences() == (None, None)
    assert not world.busy()


def test_a_fence_that_is_not_certain_goes_only_when_it_is_asked_for(world: World) -> None:
    world.driver.compute.fence(world.instance.id, "somebody")
    world.clock.jump(GRACE + 1)
    sweep(world)
    assert world.fences() == (None, "somebody")
    (fence,) = look(world)
    assert (fence.kind, fence.about, fence.sure) == (LeftoverKind.FENCE, "somebody", False)
    assert leftovers(world).remove(fence, lambda: None)[0] is Outcome.REMOVED
    assert world.fences() == (None, None)


def test_a_fence_is_spared_while_an_operation_is_on_its_instance(world: World) -> None:
    world.driver.compute.fence(world.instance.id, "somebody")
    (fence,) = look(world)
    gate = world.faults.hold("complete")
    world.begin_create()
    gate.arrived()
    assert leftovers(world).remove(fence, lambda: None)[0] is Outcome.SPARED
    assert world.fences() == (None, "somebody")
    gate.let_go()
    world.settle()


def test_two_sweeps_at_a_time_do_what_one_does(world: World) -> None:
    appear(world, *deleted(world))
    kept = world.create()
    world.clock.jump(GRACE + 1)
    other = world.another_worker()
    gates = [one.faults.hold("delete") for one in (world, other)]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(sweep, world)
        gates[0].arrived()
        # Its claim runs out, for the whole process was suspended.
        JobStore(world.service.database).put_all_back()
        second = pool.submit(sweep, other)
        gates[1].arrived()
        for gate in gates:
            gate.let_go()
        assert second.result(30) is RunOutcome.SUCCEEDED
        assert first.result(30) is RunOutcome.SUPERSEDED
    other.stop()
    assert {copy.name.snapshot_id for copy in world.driver.storage.find(None)} == {kept}
    swept = [line for line in metrics(world).splitlines() if line.startswith("stillframe_leftovers_swept_total")]
    failed = [line for line in swept if 'outcome="failed"' in line]
    assert failed
    assert {line.rpartition(" ")[2] for line in failed} == {"0.0"}


@pytest.mark.parametrize("late", [False, True])
def test_a_sweep_that_is_killed_is_made_good_by_the_next(world: World, *, late: bool) -> None:
    appear(world, *deleted(world))
    world.clock.jump(GRACE + 1)

    def killed(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if late:
            method(*args, **kwargs)
        raise KeyboardInterrupt

    world.faults.put("delete", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep(world)
    world.faults.mend()
    sweep(world)
    assert world.copies() == []
    assert not world.busy()


@pytest.mark.parametrize("late", [False, True])
def test_a_fence_whose_removal_is_killed_is_removed_by_the_next(world: World, *, late: bool) -> None:
    snapshot_id, _operation = deleted(world)
    world.driver.compute.fence(world.instance.id, snapshot_id)
    with world.service.database.writing() as connection:
        connection.execute(sa.insert(FENCES).values(instance_id=world.instance.id, snapshot_id=snapshot_id))
    world.clock.jump(GRACE + 1)

    def killed(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if late:
            method(*args, **kwargs)
        raise KeyboardInterrupt

    world.faults.put("unfence", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep(world)
    assert world.fences() == (snapshot_id, None if late else snapshot_id)
    assert not world.busy()
    world.faults.mend()
    sweep(world)
    assert world.fences() == (None, None)


def test_a_platform_that_does_not_answer_is_asked_again_next_time(world: World) -> None:
    appear(world, *deleted(world))
    world.clock.jump(GRACE + 1)
    world.faults.fail("find", Unavailable("down"))
    sweep(world)
    assert len(world.copies()) == 2
    assert 'stillframe_janitor_sweeps_total{outcome="incomplete"} 1.0' in metrics(world)
    world.faults.mend()
    sweep(world)
    assert world.copies() == []


def test_a_copy_that_cannot_be_removed_keeps_none_of_the_others(world: World) -> None:
    snapshot_id, operation_id = deleted(world)
    appear(world, snapshot_id, operation_id)
    world.clock.jump(GRACE + 1)
    stubborn = world.driver.storage.find(None)[0]
    world.faults.fail("delete", StillframeError("in use"), stubborn.id)
    sweep(world)
    assert [copy.id for copy in world.driver.storage.find(None)] == [stubborn.id]
    assert 'stillframe_leftovers_swept_total{kind="copy",outcome="failed"} 1.0' in metrics(world)


def test_the_rounds_are_made_by_themselves_and_end_with_the_service(tmp_path: Path) -> None:
    world = World(tmp_path, janitor_grace=timedelta(0), janitor_interval=timedelta(seconds=0.05))
    try:
        appear(world, *deleted(world))
        waited = threading.Event()
        while world.copies():
            assert not waited.wait(0.02)
    finally:
        assert world.stop()


def test_a_removal_that_lasts_is_broken_off_when_the_service_ends(world: World) -> None:
    appear(world, *deleted(world))
    world.clock.jump(GRACE + 1)
    world.service.background.stop()
    assert sweep(world) is RunOutcome.INTERRUPTED
    assert len(world.copies()) == 2


def test_the_janitor_can_be_switched_off(tmp_path: Path) -> None:
    world = World(tmp_path, janitor_interval=timedelta(0), claim_seconds=2.0)
    jobs = JobStore(world.service.database)
    try:
        with world.service.database.writing() as connection:
            connection.execute(sa.update(JOBS).values(known_since=datetime(2000, 1, 1)))  # noqa: DTZ001  # as stored
        wait_until(lambda: any(job.succeeded_at for job in jobs.all()), "no job was done")
        assert [job.name for job in jobs.all() if job.succeeded_at] == ["sweeper"]
        assert 'stillframe_job_overdue_seconds{name="janitor"}' not in metrics(world)
    finally:
        assert world.stop()
