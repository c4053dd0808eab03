"""A guest that does not say what it has done: nobody takes that for a no, and what is somebody else's stays theirs."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stillframe.domain.errors import BackendError, Conflict, GuestHeld, Refused, StillframeError
from stillframe.domain.instance import PowerState
from stillframe.domain.snapshot import ConsistencyLevel
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.qemu.commands import Qemu
from stillframe.drivers.qemu.compute import QemuCompute
from stillframe.drivers.qemu.declaration import Disk
from stillframe.drivers.qemu.guard import Guard, Order
from stillframe.drivers.qemu.holding import LONGEST_HOLD, Mark
from stillframe.drivers.qemu.leftovers import QemuLeftovers
from stillframe.testing.world import SIZE, a_call
from tests.conformance.test_qemu_processes import eventually, run_state
from tests.conformance.worlds import LocalWorld, ask, run
from tests.harness.surround import surround
from tests.lab.speakers import ScriptedAgent, speaking


class Scene:
    """A running machine with a scripted agent, and drivers that do not wait for long."""

    def __init__(self, folder: Path) -> None:
        self.world = LocalWorld(folder, Format.RAW)
        self.agent = ScriptedAgent()
        path = self.world.disks / "disk"
        run("qemu-img", "create", "-q", "-f", "raw", str(path), str(SIZE))
        disk = Disk(name="root", path=path, format=Format.RAW)
        self.instance = self.world.declare("vm", [disk], agent=self.world.sockets / "agent")
        self.use(Qemu(freeze_timeout=0.5))
        self.world.compute.start(a_call(), self.instance.id)

    def use(self, qemu: Qemu, hold_seconds: float = LONGEST_HOLD, lock_seconds: float = 2.0) -> None:
        world = self.world
        self.compute = QemuCompute(
            *(world.instances, world.state, world.files, qemu),
            guard=world.guard,
            release_seconds=0.5,
            hold_seconds=hold_seconds,
            lock_seconds=lock_seconds,
        )
        self.leftovers = QemuLeftovers(world.declarations, self.compute.holding)

    def cut(self) -> ConsistencyLevel:
        """A cut of nothing; the level that it would have."""
        with self.compute.quiesced(a_call(), self.instance.id) as stillness:
            self.reason = stillness.reason or ""
        return stillness.level

    @property
    def run_state(self) -> str:
        return run_state(self.world, self.instance)

    @property
    def mark(self) -> Path:
        return self.world.state / "quiesced" / self.instance.id

    def start_anew(self) -> None:
        """Another process with the same guest."""
        self.world.compute.stop(a_call(), self.instance.id, 0)
        self.world.compute.start(a_call(), self.instance.id)

    def run_for_a_while(self) -> None:
        """Be let go and paused by another tool."""
        before = self.requests()
        self.world.monitor(self.instance.id, "cont")
        eventually(lambda: self.requests() > before, 60)
        self.world.monitor(self.instance.id, "stop")

    def requests(self) -> int:
        """How often the guest has asked something of its disks."""
        found = ask(self.world.second_monitor(self.instance.id), "query-blockstats")
        return sum(one["stats"]["wr_operations"] for one in found)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    try:
        with speaking(made.world.sockets / "agent", made.agent.part):
            yield made
            made.agent.go_on()
    finally:
        (made.world.sockets / "agent").unlink(missing_ok=True)
        made.world.close()


def test_a_freeze_that_comes_late_is_thawed_as_soon_as_somebody_gets_through(scene: Scene) -> None:
    scene.agent.hangs = {"guest-fsfreeze-freeze"}
    with pytest.raises(GuestHeld, match="may still be held"):
        scene.cut()
    assert scene.leftovers.quiesced() == [scene.instance.id]
    with pytest.raises(GuestHeld):
        scene.leftovers.let_run(scene.instance.id, lambda: None)
    scene.agent.go_on()
    eventually(lambda: scene.agent.frozen, 30)
    scene.leftovers.let_run(scene.instance.id, lambda: None)
    assert (scene.leftovers.quiesced(), scene.agent.frozen, scene.run_state) == ([], False, "running")


def test_a_thaw_that_nobody_confirms_spoils_the_cut_and_stays_on_the_list(scene: Scene) -> None:
    scene.agent.hangs = {"guest-fsfreeze-thaw"}
    with pytest.raises(GuestHeld, match="guest-fsfreeze-thaw"):
        scene.cut()
    assert scene.run_state == "running"
    assert scene.leftovers.quiesced() == [scene.instance.id]
    scene.agent.go_on()
    scene.leftovers.let_run(scene.instance.id, lambda: None)
    assert (scene.leftovers.quiesced(), scene.agent.frozen) == ([], False)


def test_a_cut_that_follows_is_made_only_of_a_guest_that_is_free(scene: Scene) -> None:
    scene.agent.hangs = {"guest-fsfreeze-thaw"}
    for _ in range(2):
        with pytest.raises(GuestHeld):
            scene.cut()
    scene.agent.go_on()
    assert scene.cut() is ConsistencyLevel.FILESYSTEM
    assert (scene.leftovers.quiesced(), scene.agent.frozen) == ([], False)


def test_a_freeze_of_another_tool_is_left_to_it(scene: Scene) -> None:
    scene.agent.frozen = True
    assert scene.cut() is ConsistencyLevel.CRASH
    assert "another tool" in scene.reason
    assert (scene.agent.frozen, scene.agent.heard, scene.run_state) == (True, [], "running")


def test_a_freeze_that_is_refused_is_not_thawed(scene: Scene) -> None:
    scene.agent.refuses = {"guest-fsfreeze-freeze"}
    assert scene.cut() is ConsistencyLevel.CRASH
    assert "refused" in scene.reason
    assert scene.agent.heard == ["guest-fsfreeze-freeze"]


def test_a_freeze_that_fails_and_leaves_the_guest_frozen_is_thawed(scene: Scene) -> None:
    scene.agent.botches = {"guest-fsfreeze-freeze"}
    with pytest.raises(BackendError, match="frozen since"):
        scene.cut()
    assert (scene.agent.frozen, scene.run_state, scene.leftovers.quiesced()) == (False, "running", [])


def test_a_guest_without_file_systems_to_freeze_is_cut_as_after_a_power_failure(scene: Scene) -> None:
    scene.agent.file_systems = 0
    assert scene.cut() is ConsistencyLevel.CRASH
    assert "no file system" in scene.reason
    assert (scene.run_state, scene.leftovers.quiesced()) == ("running", [])


def test_a_freeze_that_somebody_ends_meanwhile_spoils_the_cut(scene: Scene) -> None:
    with pytest.raises(BackendError, match="stay still"), scene.compute.quiesced(a_call(), scene.instance.id):
        scene.agent.frozen = False
    assert scene.leftovers.quiesced() == []


def test_an_agent_that_is_silent_is_told_of_without_a_path(scene: Scene) -> None:
    scene.agent.hangs = {"guest-fsfreeze-status"}
    assert scene.cut() is ConsistencyLevel.CRASH
    assert "agent" in scene.reason
    assert "/" not in scene.reason
    assert scene.agent.heard == []


def test_a_pause_by_somebody_else_just_before_ours_is_not_ended(scene: Scene) -> None:
    def around(name: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "pause":
            scene.world.monitor(scene.instance.id, "stop")
        return method(*args, **kwargs)

    scene.use(surround(Qemu(), around))
    assert scene.cut() is ConsistencyLevel.FILESYSTEM
    assert (scene.run_state, scene.agent.frozen, scene.leftovers.quiesced()) == ("paused", False, [])
    scene.world.monitor(scene.instance.id, "cont")


def test_a_guest_that_a_living_process_holds_is_left_alone(scene: Scene) -> None:
    with scene.compute.quiesced(a_call(), scene.instance.id):
        assert scene.leftovers.quiesced() == []
        with pytest.raises(Conflict):
            scene.leftovers.let_run(scene.instance.id, lambda: None)
        assert scene.run_state == "paused"
    assert scene.run_state == "running"


def test_a_monitor_that_another_client_holds_is_refused_before_anything_is_done(scene: Scene) -> None:
    monitor = scene.world.declarations.instance(scene.instance.id).qmp_socket
    scene.use(Qemu(timeout=1, freeze_timeout=1))
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(monitor))
        assert other.recv(1 << 16)
        with pytest.raises(Refused, match="another client"):
            scene.compute.outlook(scene.instance.id)
        with pytest.raises(Refused, match="another client"):
            scene.cut()
    assert (scene.agent.heard, scene.leftovers.quiesced(), scene.run_state) == ([], [], "running")


# A boot sector of the 8086: xor ax,ax; mov ds,ax; mov es,ax; then again and again, by the BIOS (int 13h, ax 0301h), the
# sector at 7C00h to the second sector of the first disk.
WRITER = bytes.fromhex("31c0 8ed8 8ec0 b80103 bb007c b90200 ba8000 cd13 ebf0").ljust(510, b"\0") + b"\x55\xaa"


def test_a_guest_that_somebody_lets_go_and_pauses_anew_in_a_cut_spoils_it(scene: Scene) -> None:
    volume_id = scene.instance.volume_ids[0]
    scene.world.write(volume_id, 0, WRITER)
    scene.start_anew()
    eventually(lambda: scene.requests() > 0, 60)
    assert scene.cut() is ConsistencyLevel.FILESYSTEM
    with pytest.raises(BackendError, match="stay still"), scene.compute.quiesced(a_call(), scene.instance.id):
        scene.run_for_a_while()
    assert (scene.run_state, scene.agent.frozen, scene.leftovers.quiesced()) == ("running", False, [])


def test_a_guest_that_was_paused_before_and_ran_in_a_cut_spoils_it_too(scene: Scene) -> None:
    scene.world.write(scene.instance.volume_ids[0], 0, WRITER)
    scene.start_anew()
    eventually(lambda: scene.requests() > 0, 60)
    scene.world.monitor(scene.instance.id, "stop")
    assert scene.cut() is ConsistencyLevel.CRASH
    with pytest.raises(BackendError, match="did not stay paused"), scene.compute.quiesced(a_call(), scene.instance.id):
        scene.run_for_a_while()
    assert scene.run_state == "paused"


def test_a_guest_is_held_no_longer_than_a_cut_may_take(scene: Scene) -> None:
    scene.use(Qemu(), hold_seconds=1.0)
    with pytest.raises(BackendError, match="after 1 s"), scene.compute.quiesced(a_call(), scene.instance.id):
        eventually(lambda: scene.run_state == "running" and not scene.agent.frozen and scene.mark.exists(), 60)
    assert scene.leftovers.quiesced() == []


def test_a_guest_whose_holder_is_stopped_in_the_middle_is_let_go_again_and_again(scene: Scene) -> None:
    def around(name: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "pause":
            eventually(lambda: scene.agent.heard[-1] == "guest-fsfreeze-thaw", 60)
            found = method(*args, **kwargs)
            eventually(lambda: scene.run_state == "running", 60)
            return found
        return method(*args, **kwargs)

    scene.use(surround(Qemu(), around), hold_seconds=1.0)
    with pytest.raises(BackendError, match="could not be held still within 1 s"):
        scene.cut()
    assert (scene.run_state, scene.agent.frozen, scene.leftovers.quiesced()) == ("running", False, [])


@pytest.mark.parametrize("by", ["whoever looks later", "the watchdog"])
def test_a_process_that_has_taken_the_place_of_the_one_that_was_held_is_left_alone(scene: Scene, by: str) -> None:
    with scene.compute.quiesced(a_call(), scene.instance.id):
        left = scene.mark.read_bytes()
    scene.start_anew()
    scene.mark.write_bytes(left)
    scene.agent.frozen = True
    scene.world.monitor(scene.instance.id, "stop")
    if by == "the watchdog":
        monitor, mark = scene.world.declarations.instance(scene.instance.id).qmp_socket, Mark.read(left)
        guard = Guard()
        agent = scene.world.sockets / "agent"
        until = time.monotonic() + 600
        guard.arm(Order(monitor, agent, scene.mark, mark.token, mark.process, until, 60.0))
        guard.close()
        eventually(lambda: not scene.mark.exists(), 60)
    else:
        scene.leftovers.let_run(scene.instance.id, lambda: None)
    assert (scene.run_state, scene.agent.frozen, scene.leftovers.quiesced()) == ("paused", True, [])


def test_a_mark_that_does_not_know_its_process_counts_for_any(scene: Scene) -> None:
    with scene.compute.quiesced(a_call(), scene.instance.id):
        left = json.loads(scene.mark.read_bytes())
    scene.start_anew()
    scene.world.monitor(scene.instance.id, "stop")
    scene.mark.write_text(json.dumps({key: left[key] for key in ("token", "paused", "frozen")}))
    scene.leftovers.let_run(scene.instance.id, lambda: None)
    assert (scene.run_state, scene.leftovers.quiesced()) == ("running", [])


def with_options(scene: Scene, *options: str) -> None:
    """The same machine, started by hand."""
    declaration = scene.world.declarations.instance(scene.instance.id)
    scene.world.compute.stop(a_call(), scene.instance.id, 0)
    scene.world.qemu.launch((*declaration.start_command, *options), scene.world.folder / "log")
    eventually(lambda: scene.world.qemu.status(declaration.qmp_socket or Path()) is not None, 60)


def test_a_guest_that_is_on_the_move_is_neither_cut_nor_started_nor_stopped(scene: Scene) -> None:
    with_options(scene, "-incoming", "defer")
    for refused in (
        scene.cut,
        lambda: scene.compute.outlook(scene.instance.id),
        lambda: scene.compute.start(a_call(), scene.instance.id),
        lambda: scene.compute.stop(a_call(), scene.instance.id, 0),
        lambda: scene.compute.check_power(scene.instance.id, PowerState.SHUTOFF),
    ):
        with pytest.raises(Refused, match="migrated into it"):
            refused()
    assert scene.run_state == "inmigrate"
    scene.world.monitor(scene.instance.id, "quit")


def test_a_guest_that_has_not_begun_to_run_is_told_as_such(scene: Scene) -> None:
    with_options(scene, "-S")
    assert "has not begun to run" in (scene.compute.outlook(scene.instance.id).reason or "")
    assert scene.cut() is ConsistencyLevel.CRASH
    assert "prelaunch" in scene.reason
    assert scene.run_state == "prelaunch"


HOLDER = """
import sys, time
from pathlib import Path
from stillframe.drivers.call import Call
from stillframe.drivers.qemu.compute import QemuCompute
from stillframe.drivers.image_files.files import Files
from stillframe.drivers.qemu.guard import Guard
from stillframe.drivers.qemu.commands import Qemu
compute = QemuCompute(Path(sys.argv[1]), Path(sys.argv[2]), Files(), Qemu(freeze_timeout=60), guard=Guard())
with compute.quiesced(Call("o", "r", lambda: None, lambda done, total: None), sys.argv[3]):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(scene: Scene) -> subprocess.Popen[str]:
    return subprocess.Popen(
        (sys.executable, "-c", HOLDER, str(scene.world.instances), str(scene.world.state), scene.instance.id),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )


def kill(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    process.stdout.close()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_the_watchdog_waits_for_a_freeze_that_comes_after_the_death_of_who_asked(scene: Scene) -> None:
    scene.agent.hangs = {"guest-fsfreeze-freeze"}
    process = holder(scene)
    eventually(lambda: scene.agent.heard == ["guest-fsfreeze-freeze"], 60)
    kill(process)
    scene.agent.go_on()
    eventually(lambda: scene.leftovers.quiesced() == [], 60)
    assert (scene.agent.frozen, scene.agent.heard[-1]) == (False, "guest-fsfreeze-thaw")


def test_the_watchdog_leaves_a_guest_alone_that_somebody_holds_anew(scene: Scene) -> None:
    scene.agent.hangs = {"guest-fsfreeze-freeze"}
    process = holder(scene)
    eventually(lambda: scene.agent.heard == ["guest-fsfreeze-freeze"], 60)
    mark = scene.world.state / "quiesced" / scene.instance.id
    mark.write_text('{"token": "another", "paused": true, "frozen": true}')
    scene.world.monitor(scene.instance.id, "stop")
    kill(process)
    scene.agent.go_on()
    eventually(lambda: scene.agent.frozen, 30)
    assert scene.run_state == "paused"
    # Whoever looks later judges by the mark that is there.
    scene.leftovers.let_run(scene.instance.id, lambda: None)
    assert (scene.agent.frozen, scene.run_state) == (False, "running")


def test_the_watchdog_leaves_a_guest_alone_that_somebody_else_has_stopped_since(scene: Scene) -> None:
    scene.world.write(scene.instance.volume_ids[0], 0, WRITER)
    scene.start_anew()
    eventually(lambda: scene.requests() > 0, 60)
    process = holder(scene)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    scene.run_for_a_while()
    kill(process)
    eventually(lambda: not scene.mark.exists(), 60)
    assert (scene.run_state, scene.agent.frozen) == ("paused", False)
    scene.world.monitor(scene.instance.id, "cont")


class Overtaken:
    """Holds the guest in a thread of its own, and is suspended right before one of the calls that it makes to QEMU."""

    def __init__(self, scene: Scene, at: int) -> None:
        self.problem: BaseException | None = None
        self.suspended = False
        self._reached, self._goes_on = threading.Event(), threading.Event()
        self._holds, self._ends = threading.Event(), threading.Event()
        self._count = itertools.count()
        self._at = at
        scene.use(surround(Qemu(freeze_timeout=0.5), self._around), lock_seconds=0.05)
        self._thread = threading.Thread(target=self._run, args=(scene.compute, scene.instance.id), daemon=True)
        self._thread.start()
        assert self._reached.wait(60)
        scene.use(Qemu(freeze_timeout=0.5), lock_seconds=0.05)

    def go_on_until_it_holds(self) -> None:
        self._goes_on.set()
        assert self._holds.wait(60)

    def go_on(self) -> None:
        self._goes_on.set()
        self._ends.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self, compute: QemuCompute, instance_id: str) -> None:
        try:
            with compute.quiesced(a_call(), instance_id):
                self._holds.set()
                assert not self.suspended or self._ends.wait(60)
        except StillframeError as problem:
            self.problem = problem
        self._holds.set()
        self._reached.set()

    def _around(self, _name: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if next(self._count) == self._at:
            self.suspended = True
            self._reached.set()
            assert self._goes_on.wait(60)
        return method(*args, **kwargs)


def is_free(scene: Scene) -> bool:
    """Whether the guest is, once all that may be held by nobody was let go; nothing else says that it is held then."""
    for instance_id in scene.leftovers.quiesced():
        scene.leftovers.let_run(instance_id, lambda: None)
    return (scene.run_state, scene.agent.frozen, scene.mark.exists()) == ("running", False, False)


@pytest.mark.parametrize("comes_back", ["after the other hold", "within the other hold", "across its end"])
def test_a_holder_that_is_overtaken_anywhere_leaves_no_guest_held(scene: Scene, comes_back: str) -> None:
    for at in itertools.count():
        late = Overtaken(scene, at)
        if not late.suspended:
            break
        stayed, problem = False, None
        try:
            with scene.compute.quiesced(a_call(), scene.instance.id):
                if comes_back == "within the other hold":
                    late.go_on()
                elif comes_back == "across its end":
                    late.go_on_until_it_holds()
                stayed = scene.run_state == "paused"
        except StillframeError as raised:
            problem = raised
        late.go_on()
        assert stayed or problem is not None, at
        assert is_free(scene), (at, late.problem, problem, scene.run_state, scene.agent.frozen, scene.mark.exists())
    assert at >= 8


DYING = HOLDER.replace(
    "compute =",
    """
import os, signal
from tests.harness.surround import surround
def around(name, method, args, kwargs):
    if name != sys.argv[4]:
        return method(*args, **kwargs)
    print("about to", flush=True)
    sys.stdin.readline()
    method(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
whole = Qemu
Qemu = lambda **more: surround(whole(**more), around)
compute =""",
)


@pytest.mark.parametrize("step", ["freeze", "pause"])
def test_a_holder_that_is_overtaken_and_dies_right_after_a_step_leaves_no_guest_held(scene: Scene, step: str) -> None:
    process = subprocess.Popen(
        (sys.executable, "-c", DYING, str(scene.world.instances), str(scene.world.state), scene.instance.id, step),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "about to\n"
        scene.use(Qemu(), lock_seconds=0.05)
        assert scene.cut() is ConsistencyLevel.FILESYSTEM
        process.stdin.write("go on\n")
        process.stdin.flush()
        process.wait(60)
        eventually(lambda: is_free(scene), 60)
    finally:
        process.kill()
        process.communicate()
