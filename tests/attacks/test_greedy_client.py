"""A client that takes more than its share gets what it may have, and nobody else waits for it."""

from __future__ import annotations

import base64
import http.client
import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import bcrypt
import pytest

from stillframe.api.connections import Bounds
from stillframe.domain.instance import PowerState
from tests.api.running import Running, running
from tests.attacks.greed import PROMPT, connected, greedy, slowest_answer
from tests.cli.program import Place, Process, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIST = "/volume/v3/p/instance-snapshots"
CROWD = 810
GUESSERS = 24
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The service as a process of its own."""
    place = Place(tmp_path_factory.mktemp("greedy"))
    place.configure(auth_strategy="noauth")
    with started(place, "serve") as served:
        yield served


@pytest.fixture
def url(process: Process) -> str:
    return next(word for word in process.said.split() if word.startswith("http://"))


@pytest.fixture
def brief(tmp_path: Path) -> Iterator[Running]:
    """A service with little patience and room."""
    with running(tmp_path, bounds=Bounds(connections=20, idle=1.5, receiving=1.0, sending=1.5)) as api:
        yield api


def most_memory(process: Process) -> float:
    """The most MiB that the process has had in memory so far, see proc_pid_status(5)."""
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def closed_after(connection: socket.socket, seconds: float = 60.0) -> float:
    """How long the other side takes to close a connection."""
    started = time.monotonic()
    connection.settimeout(seconds)
    with suppress(ConnectionResetError):
        while connection.recv(1 << 16):
            pass
    return time.monotonic() - started


class TestDrip:
    def test_headers_that_never_end_keep_nobody_else_out(self, url: str) -> None:
        with greedy(url, CROWD, HEAD, lambda turn: b"X" if turn % 40 else b"X: y\r\nX"):
            assert slowest_answer(url + LIST) < PROMPT

    def test_bodies_that_never_end_keep_nobody_else_out(self, url: str) -> None:
        opening = b"POST /compute/v2.1/p/servers/x/action HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n"
        with greedy(url, CROWD, opening, lambda _turn: b" "):
            assert slowest_answer(url + LIST) < PROMPT

    def test_chunks_that_never_end_keep_nobody_else_out(self, url: str) -> None:
        opening = (
            b"POST /compute/v2.1/p/servers/x/action HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        with greedy(url, CROWD, opening, lambda _turn: b"1\r\n \r\n"):
            assert slowest_answer(url + LIST) < PROMPT

    def test_thousands_of_idle_connections_keep_nobody_else_out(self, url: str) -> None:
        with greedy(url, 2000, HEAD + b"\r\n", lambda _turn: b""):
            assert slowest_answer(url + LIST) < PROMPT

    def test_a_request_is_complete_in_time_or_given_up(self, brief: Running) -> None:
        with connected(brief.url) as head, connected(brief.url) as body, connected(brief.url) as silent:
            head.sendall(HEAD)
            body.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
            ending = threading.Event()

            def drip() -> None:
                while not ending.wait(0.1):
                    for one in (head, body):
                        try:
                            one.send(b"x")
                        except OSError:
                            return

            thread = threading.Thread(target=drip)
            thread.start()
            # Whatever they go on sending.
            assert closed_after(head) < 18
            assert closed_after(body) < 18
            assert closed_after(silent) < 18
            ending.set()
            thread.join()
        assert brief.call("GET", LIST).status_code == 200

    def test_a_connection_that_is_used_again_and_again_stays(self, tmp_path: Path) -> None:
        # Much longer than between two requests, also on a busy machine, and shorter than all of them together.
        with running(tmp_path, bounds=Bounds(idle=5.0)) as api:
            connection = http.client.HTTPConnection("127.0.0.1", urlsplit(api.url).port, timeout=60)
            connection.connect()
            first, until = connection.sock, time.monotonic() + 6
            while time.monotonic() < until:
                connection.request("GET", "/openapi.json")
                reply = connection.getresponse()
                assert (reply.status, len(reply.read()) > 1000) == (200, True)
                time.sleep(0.5)
            assert connection.sock is first
            connection.close()

    def test_whoever_waits_longest_goes_first_when_all_places_are_taken(self, tmp_path: Path) -> None:
        patient = Bounds(connections=20, idle=600.0, receiving=600.0)
        with running(tmp_path, bounds=patient) as api, ExitStack() as stack:
            first = stack.enter_context(connected(api.url))
            first.sendall(HEAD)
            time.sleep(0.1)
            others = [stack.enter_context(connected(api.url)) for _ in range(20)]
            assert closed_after(first, 60) < 60
            others[-1].sendall(HEAD + b"\r\n")
            assert others[-1].recv(100).startswith(b"HTTP/1.1 300")


class TestReader:
    def test_replies_that_nobody_reads_hold_neither_thread_nor_memory(self, process: Process, url: str) -> None:
        # Each connection asks for many megabytes in one packet, and takes none of them.
        before = most_memory(process)
        with greedy(url, 100, b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 190, lambda _turn: b""):
            assert slowest_answer(url + LIST, 30) < PROMPT
        assert most_memory(process) - before < 100

    def test_a_reply_is_taken_in_time_or_given_up(self, brief: Running) -> None:
        with connected(brief.url) as connection:
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 190)
            time.sleep(5)
            got = 0
            with suppress(ConnectionResetError):
                while chunk := connection.recv(1 << 20):
                    got += len(chunk)
        # What the kernel had taken over by then, and no more.
        assert got < 190 * len(brief.call("GET", "/openapi.json").content)

    def test_requests_in_one_packet_are_answered_in_their_order(self, url: str) -> None:
        with connected(url) as connection:
            connection.sendall(
                b"".join(
                    b"GET /volume/v3/p%d/instance-snapshots/x HTTP/1.1\r\nHost: localhost\r\n\r\n" % n
                    for n in range(100)
                )
            )
            connection.shutdown(socket.SHUT_WR)
            said = b""
            while chunk := connection.recv(1 << 16):
                said += chunk
        assert said.count(b"HTTP/1.1 404 Not Found") == 100

    def test_a_client_that_says_no_more_is_answered_all_the_same(self, url: str) -> None:
        with connected(url) as connection:
            connection.sendall(HEAD + b"\r\n")
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(100).startswith(b"HTTP/1.1 300")
            assert closed_after(connection) < PROMPT

    def test_half_a_request_of_a_client_that_says_no_more_is_given_up_at_once(self, url: str) -> None:
        with connected(url) as connection:
            connection.sendall(HEAD)
            connection.shutdown(socket.SHUT_WR)
            assert closed_after(connection) < PROMPT


class TestSize:
    @pytest.mark.parametrize("size", [2 * 10**6, 10**9, 10**18])
    def test_a_body_that_is_too_long_is_refused_before_it_is_sent(self, url: str, size: int) -> None:
        with connected(url) as connection:
            connection.sendall(b"POST /volume HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size)
            assert connection.recv(100).startswith(b"HTTP/1.1 413")
            assert closed_after(connection) < PROMPT

    def test_headers_that_are_too_long_are_refused(self, url: str) -> None:
        with connected(url) as connection:
            connection.sendall((HEAD + b"X-Long: ").ljust(32 << 10, b"x"))
            assert b" 431 " in connection.recv(100)


class TestPower:
    def test_guests_that_do_not_react_hold_nobody_up(self, tmp_path: Path) -> None:
        with running(tmp_path) as api:
            guests = [api.instance("p", power_state=PowerState.ACTIVE) for _ in range(40)]
            with api.faults.holding("stop"):
                begun = time.monotonic()
                assert {api.act(one, {"os-stop": None}).status_code for one in guests} == {202}
                assert {api.act(one, {"os-stop": None}).status_code for one in guests} == {409}
                assert time.monotonic() - begun < 2 * PROMPT
                assert slowest_answer(api.url + "/healthcheck") < PROMPT
                assert slowest_answer(api.url + LIST) < PROMPT
                shown = api.call("GET", "/compute/v2.1/p/servers/detail").json()["servers"]
                assert {one["OS-EXT-STS:task_state"] for one in shown} == {"powering-off"}

    def test_a_platform_that_hangs_holds_up_nobody_who_needs_none(self, tmp_path: Path) -> None:
        with running(tmp_path) as api, api.faults.holding("get_instance"):
            where = urlsplit(api.url).netloc.encode()
            with ExitStack() as stack:
                for _ in range(40):
                    waiting = stack.enter_context(connected(api.url))
                    waiting.sendall(b"GET /compute/v2.1/p/servers/x HTTP/1.1\r\nHost: " + where + b"\r\n\r\n")
                assert slowest_answer(api.url + "/healthcheck") < PROMPT
                assert slowest_answer(api.url + LIST) < PROMPT

    def test_an_instance_that_hangs_holds_up_nobody_who_needs_another_one(self, tmp_path: Path) -> None:
        with running(tmp_path) as api:
            hanging, well = api.instance("p"), api.instance("p")
            where, answered = urlsplit(api.url).netloc.encode(), []
            with api.faults.holding("get_instance", hanging.id) as gate, ExitStack() as stack:
                for number in range(40):
                    waiting = stack.enter_context(connected(api.url))
                    path = b"/v2.1/p/servers" if number % 2 else b"/compute/v2.1/servers"
                    what = path + b"/" + hanging.id.encode()
                    waiting.sendall(b"GET " + what + b" HTTP/1.1\r\nHost: " + where + b"\r\n\r\n")
                    answered.append(waiting)
                assert slowest_answer(f"{api.url}/compute/v2.1/p/servers/{well.id}") < PROMPT
                assert slowest_answer(f"{api.url}/compute/v2.1/p/servers/detail") < PROMPT
                gate.let_go()
                for waiting in answered:
                    assert waiting.recv(100).startswith(b"HTTP/1.1 ")


class TestGuess:
    def test_whoever_guesses_passwords_holds_up_neither_known_nor_new_clients(self, tmp_path: Path) -> None:
        users = tmp_path / "htpasswd"
        cost = bcrypt.gensalt(11)
        users.write_bytes(b"".join(b"%b:%b\n" % (user, bcrypt.hashpw(b"right", cost)) for user in (b"known", b"new")))
        overrides = (
            (None, "auth_strategy", "http_basic"),
            ("http_basic", "user_file", str(users)),
            ("http_basic", "grants", ["known:p:reader", "new:p:reader"]),
        )
        with running(tmp_path, *overrides) as api:
            assert answer(api.url, "known", "127.0.0.1") == 200
            ending, answered = threading.Event(), [0]

            def guess(number: int) -> None:
                turn = 0
                while not ending.is_set():
                    turn += 1
                    assert answer(api.url, "known", "127.0.0.1", f"{number} {turn}") == 401
                    answered[0] += 1

            threads = [threading.Thread(target=guess, args=(number,)) for number in range(GUESSERS)]
            for thread in threads:
                thread.start()
            try:
                until_true(lambda: answered[0] > GUESSERS)
                # Without turns, each would wait for all of the others. The second is not known, and has to be checked.
                begun, waits = answered[0], [*[("known", "127.0.0.1")] * 10, ("new", "127.0.0.2")]
                for user, source in waits:
                    assert answer(api.url, user, source) == 200
                assert answered[0] - begun < len(waits) * GUESSERS / 2
            finally:
                ending.set()
                for thread in threads:
                    thread.join(60)


def until_true(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


def answer(url: str, user: str, source: str, password: str = "right") -> int:  # noqa: S107  # a test's
    """Status of the answer to a user that asks from one of this machine's own addresses."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(url).port, timeout=60, source_address=(source, 0))
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    connection.request("GET", LIST, headers={"Authorization": f"Basic {token}"})
    reply = connection.getresponse()
    reply.read()
    connection.close()
    return reply.status
