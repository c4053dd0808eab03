"""Calls that really hang, in a read that nothing ends but what it waits for: they are given up, and change nothing."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from stillframe.cli.exit_codes import ExitCode
from stillframe.cli.health import operations
from stillframe.domain.instance import PowerState
from tests.flows.test_deadlines import DAY, GRACE, HOUR, is_reserved, wait_for_status
from tests.harness.faults import wait_until
from tests.harness.world import PROJECT, SIZE, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHANGING = {"cut", "restore", "delete", "start", "stop", "fence", "unfence", "release"}


class Pipe:
    """A call that reads from a pipe which nobody writes to, and is made after all when somebody does."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "pipe"
        os.mkfifo(self._path)
        self._entered = threading.Semaphore(0)
        self._returned = threading.Semaphore(0)
        self._ended = False

    def __call__(self, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._ended:
            return method(*args, **kwargs)
        self._entered.release()
        self._path.read_bytes()
        try:
            return method(*args, **kwargs)
        finally:
            self._returned.release()

    def arrived(self) -> None:
        assert self._entered.acquire(timeout=60)

    def end(self) -> None:
        """Let every read come to its end, and the calls with them."""
        if self._ended:
            return
        self._ended = True
        self._path.write_bytes(b"")
        assert self._returned.acquire(timeout=60)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, workers=2, volume_workers=1, hang_seconds=1.0)
    yield world
    world.stop()


@pytest.fixture
def pipe(world: World, tmp_path: Path) -> Iterator[Pipe]:
    pipe = Pipe(tmp_path)
    yield pipe
    pipe.end()
    wait_until(lambda: hung(world) == 0, "the call that returned counts as one that hangs")


def hung(world: World) -> int:
    text = world.ask("GET", "/metrics").text
    return int(float(next(line.split()[1] for line in text.splitlines() if line.startswith("stillframe_hung_calls "))))


def hang(world: World, pipe: Pipe, way: str, call: str) -> str:
    """Let an operation hang until its call is given up; the instance snapshot."""
    world.write(b"before")
    snapshot_id = "" if way == "create" else world.create()
    world.write(b"later")
    world.faults.put(call, pipe)
    if way == "create":
        snapshot_id, _task = world.begin_create(None, world.first)
    elif way == "delete":
        world.begin_delete(snapshot_id)
    else:
        world.begin(way, snapshot_id, force=True)
    pipe.arrived()
    world.clock.jump((HOUR if way == "create" else DAY) + GRACE + 1)
    after = {"create": "error", "delete": "error-deleting", "restore": "restore-error"}[way]
    wait_for_status(world, snapshot_id, after)
    message = world.show(snapshot_id)["fault"]["message"]
    assert message.endswith("The instance stays reserved until that call ends, and for 1 s at most.")
    world.settle()
    assert hung(world) == 1
    world.faults.put(call, lambda method, args, kwargs: method(*args, **kwargs))
    return snapshot_id


@pytest.mark.parametrize(
    ("way", "call"),
    [("create", "cut"), ("create", "complete"), ("delete", "delete"), ("restore", "complete"), ("restore", "restore")],
)
def test_a_call_that_hangs_is_given_up_and_what_it_does_later_changes_nothing(
    world: World, pipe: Pipe, way: str, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.driver.set_power_state(world.instance.id, PowerState.SHUTOFF)
    hung_in = hang(world, pipe, way, call)
    task_id = world.operation(hung_in)["id"]
    if way == "restore":
        assert world.rollback(hung_in, force=True)["status"] == "available"
    else:
        world.delete(hung_in)
    assert not is_reserved(world)
    world.settle()
    kept = world.create()
    before, shown = world.read(), world.show(kept)
    # Another operation is under way on the instance when the call returns.
    gate = world.faults.hold("complete")
    world.begin_create()
    gate.arrived()
    world.faults.calls.clear()
    caplog.clear()
    pipe.end()
    wait_until(lambda: hung(world) == 0, "it never returned")
    # What its own steps tell aside, it ends with one line, and with no failure.
    assert [one.getMessage() for one in caplog.records if one.levelno > logging.WARNING] == []
    returned = f"task {task_id}: the call that had been given up has returned"
    assert [one.getMessage() for one in caplog.records].count(returned) == 1
    assert CHANGING.isdisjoint(world.faults.calls)
    gate.let_go()
    world.settle()
    assert (world.read(), world.show(kept)) == (before, shown)


def test_the_doctor_names_the_operation_whose_call_hangs(tmp_path: Path) -> None:
    world = World(tmp_path, workers=2)
    gate = world.faults.hold("complete")
    snapshot_id, _task = world.begin_create()
    gate.arrived()
    world.clock.jump(HOUR + GRACE + 1)
    wait_for_status(world, snapshot_id, "error")
    told = [finding.detail for finding in operations(world.service.database)]
    assert f"snapshot of {snapshot_id} has ended and holds its instance, for a call of it hangs" in told
    assert hung(world) == 1
    gate.let_go()
    world.settle()
    told = [finding.detail for finding in operations(world.service.database)]
    assert not any("hangs" in one for one in told)
    world.stop()


def test_threads_that_hang_take_no_other_operation_s_place(world: World, pipe: Pipe) -> None:
    hang(world, pipe, "restore", "restore")
    others = [world.driver.add_instance(PROJECT, f"other{number}", [SIZE, SIZE]) for number in range(2)]
    gate = world.faults.hold("cut")
    begun = [world.begin_create(other)[0] for other in others]
    # Both workers work, although one thread of each kind hangs.
    gate.arrived(2)
    gate.let_go()
    world.settle()
    world.instance = others[0]
    assert world.restore(begun[0])["status"] == "available"


def test_a_worker_that_leaves_hands_on_between_two_tasks_and_takes_nothing_more(world: World, pipe: Pipe) -> None:
    hung_in = hang(world, pipe, "create", "cut")
    world.delete(hung_in)
    snapshot_id = world.create()
    gate = world.faults.hold("cut")
    task = world.begin("restore", snapshot_id)
    gate.arrived()
    leaving = threading.Thread(target=world.service.engine.leave, args=(60.0,))
    leaving.start()
    other, _task = world.begin_create(world.driver.add_instance(PROJECT, "other", [SIZE]))
    time.sleep(1.5)
    assert leaving.is_alive()
    gate.let_go()
    leaving.join(60)
    assert not leaving.is_alive()
    assert "restore" not in world.faults.calls
    # What hangs is no reason to wait; the process has to be ended for it.
    assert not world.stop(0.5)
    world.faults.mend()
    world.faults.calls.clear()
    world.start_anew()
    world.settle()
    assert [world.show(one)["status"] for one in (snapshot_id, other)] == ["available"] * 2
    assert world.faults.calls.count("cut") == 1
    assert world.attempts(task) == 1


WORKER = """
import pathlib, sys
from stillframe import main
from stillframe.cli.exit_codes import CommandFailed
from stillframe.cli.running import run
from stillframe.drivers.memory import MemoryDriver
from stillframe.drivers.platform import Drivers
from stillframe.service.caller import Caller
from stillframe.settings import load
from tests.harness.surround import surround

folder = pathlib.Path(sys.argv[1])
world = MemoryDriver()
instance = world.add_instance("demo", "vm", [1024])

def hanging(name, method, args, kwargs):
    if name == "cut":
        (folder / "pipe").read_bytes()
    return method(*args, **kwargs)

def build(settings, **given):
    drivers = Drivers(world.compute, surround(world.storage, hanging))
    service = main.build(settings, drivers=drivers, **given)
    caller = Caller("user", "demo", frozenset({"member", "admin", "reader"}), "req-1")
    service.snapshots.create(caller, instance.id, "kept", "", ())
    return service

overrides = [(None, "state_dir", sys.argv[1]), (None, "auth_strategy", "noauth")]
overrides += [("engine", "snapshot_deadline", 1), ("engine", "hang_seconds", 1)]
try:
    run(load(overrides=overrides), lambda line: print(line, flush=True), serve=False, work=True, build=build)
except CommandFailed as failure:
    sys.exit(int(failure.code))
"""


def test_a_worker_process_ends_by_itself_for_its_supervisor_to_start_it_anew(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    worker = subprocess.Popen((sys.executable, "-W", "ignore", "-c", WORKER, str(tmp_path)))
    try:
        assert worker.wait(120) == ExitCode.HANGS
    finally:
        worker.kill()
        worker.wait()
