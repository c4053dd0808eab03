"""A monitor whose first words are not the greeting: QEMU may send what was meant for the client before."""

from __future__ import annotations

import gc
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from stillframe.domain.errors import Unavailable
from stillframe.domain.instance import PowerState
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.qemu import watchdog
from stillframe.drivers.qemu.commands import Qemu
from stillframe.drivers.qemu.conversation import Conversation
from stillframe.drivers.qemu.monitor import HungError, Monitors
from tests.conformance.worlds import LocalWorld
from tests.lab.speakers import answering, line, messages, speaking

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}}
EVENT = {"event": "JOB_STATUS_CHANGE", "timestamp": {"seconds": 1, "microseconds": 0}, "data": {"status": "waiting"}}


@contextmanager
def monitor(path: Path, garbled: int) -> Iterator[None]:
    """A monitor that begins its first sessions with an event that is late, and the later ones as it should."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            for number in range(100):
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    answer(connection, [EVENT, GREETING] if number < garbled else [GREETING])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(60)


def answer(connection: socket.socket, first: list[Any]) -> None:
    try:
        for words in first:
            connection.sendall(json.dumps(words).encode() + b"\n")
        # The client waits for each answer before it asks again.
        while asked := connection.recv(1 << 16):
            told = {"status": "running"} if b"query-status" in asked else {}
            identity = json.loads(asked).get("id")
            reply = {"return": told} | ({} if identity is None else {"id": identity})
            connection.sendall(json.dumps(reply).encode() + b"\n")
    except OSError:
        # The client does not stay for what it cannot understand.
        return


def test_words_that_were_meant_for_somebody_else_are_no_sign_that_nobody_is_there(tmp_path: Path) -> None:
    with monitor(tmp_path / "qmp", garbled=1):
        assert Qemu().status(tmp_path / "qmp") == "running"


def test_a_monitor_that_cannot_be_understood_does_not_make_its_machine_one_that_is_off(tmp_path: Path) -> None:
    with monitor(tmp_path / "qmp", garbled=100), pytest.raises(Unavailable, match="greeting"):
        Qemu().status(tmp_path / "qmp")


def test_a_machine_is_off_where_nobody_listens(tmp_path: Path) -> None:
    assert Qemu().status(tmp_path / "qmp") is None


@pytest.mark.parametrize("counts", [[], ["nonsense"], [{"device": "disk", "stats": {}}]])
def test_the_watchdog_resumes_a_guest_of_which_nobody_can_tell_whether_it_has_run(tmp_path: Path, counts: Any) -> None:
    asked: list[str] = []

    def answer(message: dict[str, Any]) -> bytes:
        asked.append(message["execute"])
        told = {"query-blockstats": counts, "query-status": {"status": "running"}}.get(message["execute"], {})
        return line({"return": told, "id": message.get("id")})

    with speaking(tmp_path / "qmp", answering(answer, line(GREETING))):
        # Of a guest without disks nothing is counted either.
        assert watchdog.resume(str(tmp_path / "qmp"), {"requests": {}})
    assert asked[-2:] == ["cont", "query-status"]


def test_an_instance_whose_state_nobody_can_tell_hides_no_other(tmp_path: Path) -> None:
    world = LocalWorld(tmp_path, Format.RAW)
    told, silent = world.add(), world.add()
    declared = next(path for path in world.instances.iterdir() if silent.id in path.read_text())
    with socket.socket(socket.AF_UNIX) as held:
        # Somebody else is its client, and it says nothing to a second one.
        held.bind(str(world.sockets / "held"))
        held.listen()
        elsewhere = f'qmp_socket = "{world.sockets / "held"}"'
        declared.write_text(re.sub(r"(?m)^qmp_socket = .*$", elsewhere, declared.read_text()))
        found = {one.id: one.power_state for one in world.compute.list_instances(None)}
        assert found == {told.id: PowerState.SHUTOFF, silent.id: PowerState.ERROR}
        with pytest.raises(Unavailable):
            world.compute.get_instance(silent.id)
        declared.unlink()
    world.close()


@contextmanager
def crowded(path: Path) -> Iterator[Callable[[], None]]:
    """Somebody whose queue is full, and who lets nobody in before it is told to; those in the queue have left then."""
    with socket.socket(socket.AF_UNIX) as listening, ExitStack() as queue:
        listening.bind(str(path))
        listening.listen(0)
        with suppress(BlockingIOError):
            while True:
                waiting = queue.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(str(path))

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        answer(connection, [GREETING])

        thread = threading.Thread(target=serve, daemon=True)

        def let_in() -> None:
            queue.close()
            thread.start()

        yield let_in
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(60)


@pytest.mark.parametrize("who", ["service", "watchdog"])
def test_a_monitor_before_which_many_wait_is_waited_for(tmp_path: Path, who: str) -> None:
    path = tmp_path / "monitor"

    def ask() -> object:
        if who == "service":
            return Qemu(timeout=60).status(path)
        with Conversation(str(path), 60) as talk:
            return "running" if "QMP" in talk.hear() else None

    with crowded(path) as let_in, ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        assert wait([asking], 1.0).not_done
        let_in()
        assert asking.result(60) == "running"


def test_a_session_that_is_given_up_lets_the_monitor_go_at_once(tmp_path: Path) -> None:
    ended = threading.Event()

    def part(connection: socket.socket) -> None:
        connection.sendall(line(GREETING))
        next(messages(connection))
        connection.sendall(line({"return": {}}))
        if not given_up.wait(60):
            return
        while connection.recv(1 << 20):
            continue
        ended.set()

    given_up = threading.Event()
    gc.disable()
    try:
        with speaking(tmp_path / "qmp", part):
            with pytest.raises(HungError):
                Monitors(1.0).ask(tmp_path / "qmp", ("human-monitor-command", {"command-line": "x" * (16 << 20)}))
            given_up.set()
            assert ended.wait(30)
    finally:
        gc.enable()
