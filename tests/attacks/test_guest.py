"""A guest that means no good speaks as its agent, or in its monitor's place: what it gets is nothing."""

from __future__ import annotations

import json
import threading
import time
import tracemalloc
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from stillframe.domain.errors import StillframeError
from stillframe.domain.instance import PowerState
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.qemu import agent
from stillframe.drivers.qemu.commands import Qemu
from stillframe.drivers.qemu.compute import QemuCompute
from stillframe.drivers.qemu.declaration import Disk
from stillframe.drivers.qemu.guard import Guard, Order
from stillframe.testing.world import SIZE, a_call
from tests.conformance.test_qemu_processes import eventually
from tests.conformance.worlds import LocalWorld, run
from tests.lab.hostility import SLOW, SPEAKERS, WORDS
from tests.lab.speakers import GREETING, ScriptedAgent, line, monitor_saying, saying, speaking

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from tests.lab.speakers import Part

# What one conversation may take of memory, whatever is said in it.
ROOM: Final = 8 << 20
ALL: Final = {**SPEAKERS, **SLOW}


def asks(path: Path, seconds: float) -> dict[str, Callable[[], object]]:
    return {
        "freeze": lambda: agent.freeze(path, seconds),
        "thaw": lambda: agent.thaw(path, seconds),
    }


@pytest.mark.parametrize("speaker", ALL)
@pytest.mark.parametrize("what", ["freeze", "thaw"])
def test_nonsense_is_a_failure_of_the_agent_in_bounded_time_and_memory(tmp_path: Path, speaker: str, what: str) -> None:
    with speaking(tmp_path / "agent", ALL[speaker]):
        tracemalloc.start()
        begun = time.monotonic()
        with pytest.raises(StillframeError) as caught:
            asks(tmp_path / "agent", 1.0)[what]()
        taken, (_, most) = time.monotonic() - begun, tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert taken < 30
    assert most < ROOM
    told = caught.value.message
    assert told.isprintable()
    assert len(told) < 400
    assert str(tmp_path) not in told


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("greeted", [True, False])
def test_a_monitor_that_talks_nonsense_is_a_failure_of_the_platform(
    tmp_path: Path, words: str, *, greeted: bool
) -> None:
    part = monitor_saying(WORDS[words]) if greeted else saying(WORDS[words])
    with speaking(tmp_path / "qmp", part):
        begun = time.monotonic()
        with pytest.raises(StillframeError) as caught:
            Qemu(timeout=1).status(tmp_path / "qmp")
    assert time.monotonic() - begun < 30
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "endless",
    [line({"event": "STOP", "data": {"x": "y" * 900}}), line(GREETING) * 10, b"x" * 65536, line([1] * 100)],
    ids=["events", "greetings", "a line", "lists"],
)
def test_a_monitor_that_never_ends_takes_neither_time_nor_memory(tmp_path: Path, endless: bytes) -> None:
    with speaking(tmp_path / "qmp", saying(line(GREETING), endless=endless)):
        tracemalloc.start()
        begun = time.monotonic()
        with pytest.raises(StillframeError):
            Qemu(timeout=2).status(tmp_path / "qmp")
        taken, (_, most) = time.monotonic() - begun, tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert taken < 30
    assert most < 4 * ROOM


class Turncoat:
    """Speaks as it likes until it comes to reason."""

    def __init__(self, part: Part) -> None:
        self.good = ScriptedAgent()
        self.good.frozen = True
        self.heard = 0
        self._part = part
        self.reasonable = threading.Event()

    def part(self, connection: socket.socket) -> None:
        self.heard += 1
        (self.good.part if self.reasonable.is_set() else self._part)(connection)


def test_the_watchdog_outlives_every_hostile_agent_and_thaws_the_guest_in_the_end(tmp_path: Path) -> None:
    """One watchdog for all of them at a time: none of them holds up the others either."""
    guests = {f"guest-{number}": Turncoat(part) for number, part in enumerate(ALL.values())}
    guests["honest"] = Turncoat(saying())
    guests["honest"].reasonable.set()
    guard = Guard()
    with ExitStack() as stack:
        for name, guest in guests.items():
            stack.enter_context(speaking(tmp_path / name, guest.part))
            mark = tmp_path / f"{name}.mark"
            mark.write_text(json.dumps({"token": name, "paused": False, "frozen": True}))
            guard.arm(Order(None, tmp_path / name, mark, name, None, time.monotonic() + 600, 600))
        process_id = guard.process_id
        guard.close()
        eventually(lambda: not (tmp_path / "honest.mark").exists(), 30)
        eventually(lambda: all(guest.heard > 0 for guest in guests.values()), 30)
        assert memory(process_id) < 64 << 20
        for guest in guests.values():
            guest.reasonable.set()
        eventually(lambda: not list(tmp_path.glob("*.mark")), 60)
        assert not any(guest.good.frozen for guest in guests.values())


def memory(process_id: int | None) -> int:
    """Bytes that a process has in memory."""
    pages = Path(f"/proc/{process_id}/statm").read_text().split()[1]
    return int(pages) * 4096


@pytest.mark.parametrize("speaker", ["nested too deep", "messages without end", "a word for a number", "drips"])
def test_an_agent_keeps_no_guest_from_being_switched_off(tmp_path: Path, speaker: str) -> None:
    world = LocalWorld(tmp_path, Format.RAW)
    path = world.disks / "disk"
    run("qemu-img", "create", "-q", "-f", "raw", str(path), str(SIZE))
    talk = world.sockets / "agent"
    instance = world.declare("vm", [Disk(name="root", path=path, format=Format.RAW)], agent=talk)
    try:
        with speaking(talk, ALL[speaker]):
            world.compute.start(a_call(), instance.id)
            world.compute.stop(a_call(), instance.id, 0.3)
        assert world.compute.get_instance(instance.id).power_state is PowerState.SHUTOFF
    finally:
        talk.unlink(missing_ok=True)
        world.close()


def test_a_monitor_that_hangs_holds_up_only_those_who_ask_it(tmp_path: Path) -> None:
    """All instances are listed in the time that one look may take, not in that of one after the other."""
    world = LocalWorld(tmp_path, Format.RAW)
    compute = QemuCompute(world.instances, world.state, world.files, Qemu(timeout=30), guard=world.guard)
    try:
        with ExitStack() as stack:
            for number in range(20):
                instance = world.add()
                monitor = world.declarations.instance(instance.id).qmp_socket
                assert monitor is not None
                if number < 16:
                    stack.enter_context(speaking(monitor, saying(hold=True)))
            begun = time.monotonic()
            assert len(compute.list_instances(None)) == 20
            assert time.monotonic() - begun < 40
    finally:
        world.guard.close()
