"""Job boards on real servers: they speed up what the store decides, and whatever becomes of them delays nothing."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final

import pytest
from taskflow import states

from stillframe.domain.errors import Unavailable
from stillframe.engine import etcd_board, redis_board
from stillframe.engine.job_board import JobBoard, probe
from stillframe.settings.job_board import JobBoardOptions
from tests.lab.boards import KINDS, BoardServer, EtcdServer, RedisServer, board_server, free_port, options_of

# Of the machine that runs the tests, not of the board: it may be busy with anything.
# Who waits for so long was told nothing; who is told has far less to wait, also where the machine is busy.
_PATIENCE: Final = 60.0


class Servers:
    """The boards of this session, each started when it is first asked for."""

    def __init__(self, stack: ExitStack, folders: pytest.TempPathFactory) -> None:
        self._stack = stack
        self._folders = folders
        self._running: dict[str, BoardServer] = {}

    def get(self, kind: str) -> BoardServer:
        if kind not in self._running:
            server = self._stack.enter_context(board_server(kind, self._folders.mktemp(kind)))
            self._running[kind] = server
        return self._running[kind]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(stack, tmp_path_factory)


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, servers: Servers) -> BoardServer:
    found = servers.get(request.param)
    found.mend()
    return found


class Users:
    """Boards as the processes of one service have them: all of one namespace."""

    def __init__(self, options: JobBoardOptions) -> None:
        self.options = options
        self.final: set[str] = set()
        self._boards: list[JobBoard] = []

    def new(self, claim_seconds: float = 30, tidy_seconds: float = 30) -> JobBoard:
        board = JobBoard(self.options, claim_seconds, self.open_among, tidy_seconds=tidy_seconds)
        self._boards.append(board)
        return board

    def open_among(self, ids: Collection[str]) -> set[str]:
        return set(ids) - self.final

    def close(self) -> None:
        for board in self._boards:
            board.close()

    def shown(self) -> list[tuple[str, str]]:
        """Name and state of every job, as anybody may see them."""
        kind = redis_board if self.options.backend == "redis" else etcd_board
        board: Any = kind.connect(self.options)
        try:
            return sorted((job.name, job.state) for job in board.listed())
        finally:
            board.close()


@pytest.fixture
def users(server: BoardServer) -> Iterator[Users]:
    found = Users(options_of(server.settings, namespace=f"test-{uuid.uuid4().hex}"))
    yield found
    found.close()


def soon(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def waited(board: JobBoard, seconds: float = _PATIENCE) -> float:
    """How long a worker waited for something to do."""
    began = time.monotonic()
    board.wait(threading.Event(), seconds)
    return time.monotonic() - began


def took(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


def wakes(users: Users) -> None:
    """An announcement by one process wakes a worker that waits in another, before it would have looked by itself."""
    worker, api, wake = users.new(), users.new(), threading.Event()
    worker.wait(wake, 1)
    wake.clear()
    api.announce(operation_id := uuid.uuid4().hex)
    # By its name: jobs that an earlier part of a test posted twice are tidied away meanwhile.
    soon(lambda: operation_id in [name for name, _state in users.shown()])
    posted = time.monotonic()
    worker.wait(wake, _PATIENCE)
    assert wake.is_set()
    assert time.monotonic() - posted < _PATIENCE / 2


def test_an_announcement_wakes_a_waiting_worker_at_once(users: Users) -> None:
    worker, api, wake = users.new(), users.new(), threading.Event()
    worker.wait(wake, 1)
    api.announce("first")
    worker.wait(wake, _PATIENCE)
    delays = []
    for number in range(5):
        wake.clear()
        began = time.monotonic()
        api.announce(str(number))
        worker.wait(wake, _PATIENCE)
        assert wake.is_set()
        delays.append(time.monotonic() - began)
    assert max(delays) < _PATIENCE / 2


def test_a_worker_that_nobody_tells_anything_waits_for_its_time(users: Users) -> None:
    worker, wake = users.new(), threading.Event()
    worker.wait(wake, 0.5)
    wake.clear()
    assert 1.0 <= took(lambda: worker.wait(wake, 1.0)) < _PATIENCE / 2
    assert not wake.is_set()


def test_a_job_is_claimed_prolonged_given_back_and_consumed_with_its_operation(users: Users) -> None:
    board = users.new(claim_seconds=4)
    board.announce("one")
    board.taken("one")
    soon(lambda: users.shown() == [("one", states.CLAIMED)])
    until = time.monotonic() + 6
    while time.monotonic() < until:
        board.renew(["one"])
        assert users.shown() == [("one", states.CLAIMED)]
        time.sleep(0.5)
    board.put_back("one")
    soon(lambda: users.shown() == [("one", states.UNCLAIMED)])
    board.taken("one")
    soon(lambda: users.shown() == [("one", states.CLAIMED)])
    board.done("one")
    soon(lambda: users.shown() == [])


def test_the_job_of_a_dead_worker_is_taken_over_once_its_claim_has_run_out(users: Users) -> None:
    dead, heir = users.new(claim_seconds=4), users.new(claim_seconds=4)
    dead.announce("one")
    dead.taken("one")
    soon(lambda: users.shown() == [("one", states.CLAIMED)])
    heir.taken("one")
    soon(lambda: users.shown() == [("one", states.UNCLAIMED)])
    heir.renew(["one"])
    soon(lambda: users.shown() == [("one", states.CLAIMED)])
    dead.done("one")
    dead.renew(["one"])
    time.sleep(0.5)
    assert users.shown() == [("one", states.CLAIMED)]
    heir.done("one")
    soon(lambda: users.shown() == [])


def test_a_claim_that_ran_out_is_claimed_again_by_who_goes_on(users: Users) -> None:
    board = users.new(claim_seconds=4)
    board.announce("one")
    board.taken("one")
    soon(lambda: users.shown() == [("one", states.CLAIMED)])
    soon(lambda: users.shown() == [("one", states.UNCLAIMED)])
    board.renew(["one"])
    soon(lambda: users.shown() == [("one", states.CLAIMED)])
    board.done("one")
    soon(lambda: users.shown() == [])


def test_a_post_that_got_lost_is_made_good_by_who_takes_the_operation(users: Users) -> None:
    board = users.new()
    board.taken("lost")
    soon(lambda: users.shown() == [("lost", states.CLAIMED)])
    board.done("lost")
    soon(lambda: users.shown() == [])


def test_jobs_of_final_operations_and_second_jobs_are_tidied_away(users: Users) -> None:
    users.final = {"final"}
    api = users.new()
    for name in ("final", "open", "twice", "twice", "twice"):
        api.announce(name)
    soon(lambda: len(users.shown()) == 5)
    worker = users.new(tidy_seconds=0.5)
    worker.wait(threading.Event(), 0.1)
    soon(lambda: [name for name, _state in users.shown()] == ["open", "twice"])
    assert {state for _name, state in users.shown()} == {states.UNCLAIMED}


def test_nothing_is_tidied_away_while_nobody_can_say_what_is_final(users: Users) -> None:
    asked = threading.Event()

    def silent(_ids: Collection[str]) -> set[str]:
        asked.set()
        raise Unavailable("the store does not answer, as the test wished")

    board = JobBoard(users.options, 30, silent, tidy_seconds=0.2)
    board.announce("one")
    board.wait(threading.Event(), 0.1)
    assert asked.wait(_PATIENCE)
    time.sleep(0.5)
    assert users.shown() == [("one", states.UNCLAIMED)]
    board.close()


def test_a_board_that_dies_holds_nobody_up_and_works_again_when_it_is_back(users: Users, server: BoardServer) -> None:
    board, wake = users.new(), threading.Event()
    board.announce("before")
    board.taken("before")
    board.wait(wake, 1)
    soon(lambda: users.shown() == [("before", states.CLAIMED)])
    server.strike()
    quick(board)
    server.mend()
    soon(lambda: _heard(board, users))
    wakes(users)


def quick(board: JobBoard) -> None:
    """Whatever the board does, who tells it something goes on, and workers look by themselves every second."""
    acts: Sequence[Callable[[], object]] = (
        lambda: board.announce("meanwhile"),
        lambda: board.taken("meanwhile"),
        lambda: board.renew(["meanwhile", "before"]),
        lambda: board.put_back("meanwhile"),
        lambda: board.done("before"),
    )
    for _ in range(3):
        assert max(took(act) for act in acts) < _PATIENCE / 2
        assert waited(board, 1.0) < _PATIENCE / 2


def _heard(board: JobBoard, users: Users) -> bool:
    """Whether a job comes through; who waits lets the board be asked again."""
    board.announce("back")
    board.wait(threading.Event(), 0.2)
    return any(name == "back" for name, _state in users.shown())


def test_who_only_tells_a_board_something_notices_by_itself_that_it_is_back(users: Users, server: BoardServer) -> None:
    api = users.new()
    api.announce("before")
    soon(lambda: "before" in [name for name, _state in users.shown()])
    server.stop(signal.SIGKILL)
    api.announce("meanwhile")
    soon(lambda: not api.answers)
    server.mend()
    soon(lambda: api.answers)


@pytest.mark.parametrize("kind", ["redis", "etcd"])
def test_a_board_that_was_never_there_holds_nobody_up(kind: str) -> None:
    nowhere = {"backend": kind, "host": "127.0.0.1", "port": str(free_port())}
    board = JobBoard(options_of(nowhere), 30, set)
    quick(board)
    soon(lambda: waited(board, _PATIENCE) < _PATIENCE / 2)
    assert took(board.close) < _PATIENCE / 2


@pytest.mark.parametrize("more", [{}, {"sentinel": "jobs"}])
def test_a_dead_redis_is_asked_once_by_each_look(more: dict[str, str]) -> None:
    connections = 0
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # Tries that come after the look has failed wait here to be counted, too.
        listening.setblocking(False)
        stopped = threading.Event()

        def refuse() -> None:
            nonlocal connections
            while not stopped.is_set():
                with suppress(BlockingIOError):
                    listening.accept()[0].close()
                    connections += 1
                time.sleep(0.01)

        refusing = threading.Thread(target=refuse)
        refusing.start()
        try:
            port = str(listening.getsockname()[1])
            with pytest.raises(Exception, match=r"."):
                probe(options_of({"backend": "redis", "host": "127.0.0.1", "port": port, **more}))
        finally:
            stopped.set()
            refusing.join()
    assert connections == 1


@pytest.mark.parametrize("kind", ["redis", "etcd"])
def test_a_board_that_hangs_holds_nobody_up(servers: Servers, kind: str) -> None:
    server = servers.get(kind)
    assert isinstance(server, (RedisServer, EtcdServer))
    users = Users(options_of(server.settings, namespace=f"test-{uuid.uuid4().hex}"))
    board = users.new()
    board.announce("before")
    soon(lambda: len(users.shown()) == 1)
    server.process.send(signal.SIGSTOP)
    try:
        quick(board)
        assert took(users.new().close) < _PATIENCE / 2
    finally:
        server.process.send(signal.SIGCONT)
    soon(lambda: _heard(board, users))
    wakes(users)
    users.close()


_PROGRAM: Final = """
import sys, threading
from stillframe.settings.job_board import JobBoardOptions
from stillframe.engine.job_board import JobBoard, probe
board = JobBoard(eval(sys.argv[1]), 30, set)
board.announce("one")
board.taken("one")
board.wait(threading.Event(), 1)
if sys.argv[2] == "closed":
    board.close()
print("at the end", flush=True)
"""


@pytest.mark.parametrize("how", ["closed", "left open"])
def test_no_board_keeps_its_process_from_ending(users: Users, how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, repr(users.options), how],
        timeout=2 * _PATIENCE,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "at the end\n", done.stderr


def test_what_was_told_last_is_still_passed_on_at_the_end(users: Users) -> None:
    board = users.new()
    board.taken("one")
    board.taken("two")
    board.put_back("one")
    board.done("two")
    board.close()
    assert users.shown() == [("one", states.UNCLAIMED)]
