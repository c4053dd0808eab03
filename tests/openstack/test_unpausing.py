"""The watchdog lets servers run again whose service has died or takes too long; this needs no OpenStack."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

from stillframe.drivers.openstack import watchdog
from stillframe.drivers.watchdog_client import WatchdogClient
from tests.lab.openstack.services import HOST, until

LONG: Final = 600.0
OURS: Final = "the service's user"


class Nova:
    """One server as Nova shows it, and what was asked of it."""

    def __init__(self) -> None:
        self.url = ""
        self.status = "PAUSED"
        self.task: str | None = None
        self.failures = 0
        self.asked: list[Any] = []
        #: What it was asked for, the latest first, and by whom; the last one was before the watchdog was told.
        self.history = [("pause", OURS), ("unpause", OURS), ("pause", OURS)]
        self.odd: list[object] = []
        self.endless = 0
        self.said = 0
        self.tokens: set[str | None] = set()
        self.watchdogs: list[int] = []

    def answer(self, handler: BaseHTTPRequestHandler) -> tuple[int, object]:
        self.tokens.add(handler.headers["X-Auth-Token"])
        if self.failures:
            self.failures -= 1
            return 503, {}
        if self.odd:
            return 200, self.odd.pop()
        if handler.path.endswith("/os-instance-actions"):
            return 200, {"instanceActions": self.actions()}
        if handler.command == "GET":
            return 200, {"server": {"status": self.status, "OS-EXT-STS:task_state": self.task}}
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        self.asked.append(body)
        self.status = "ACTIVE"
        return 202, {}

    def actions(self) -> list[dict[str, str]]:
        last = len(self.history) - 1
        return [
            {"action": action, "user_id": user, "request_id": f"req-{last - number}"}
            for number, (action, user) in enumerate(self.history)
        ]


@pytest.fixture
def nova() -> Iterator[Nova]:
    shown = Nova()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            if shown.endless:
                shown.endless -= 1
                with suppress(OSError):
                    say_without_end(self, shown)
                return
            code, document = shown.answer(self)
            content = json.dumps(document).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer  # noqa: N815 -- as they are called

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- as it is called
            pass

    server = ThreadingHTTPServer((HOST, 0), Handler)
    shown.url = f"http://{HOST}:{server.server_address[1]}/servers/one"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield shown
    # They look until they have seen the server run.
    until(lambda: not any(Path(f"/proc/{one}").exists() for one in shown.watchdogs), 60)
    server.shutdown()
    server.server_close()


def say_without_end(handler: BaseHTTPRequestHandler, nova: Nova) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    while True:
        handler.wfile.write(b" " * (1 << 16))
        nova.said += 1 << 16


@contextmanager
def watchdog_client(nova: Nova) -> Iterator[WatchdogClient]:
    made = WatchdogClient(Path(watchdog.__file__), "-I", answer_seconds=60)
    try:
        yield made
    finally:
        if made.process_id is not None:
            nova.watchdogs.append(made.process_id)
        made.close()


def order(nova: Nova, seconds: float = LONG) -> dict[str, Any]:
    return {
        "url": nova.url,
        "headers": {"X-Auth-Token": "t"},
        "verify": True,
        "cert": None,
        "seconds": seconds,
        "user_id": OURS,
        "after": "req-1",
    }


def test_a_paused_server_runs_again_when_its_service_is_gone(nova: Nova) -> None:
    with watchdog_client(nova) as ours:
        ours.arm("one", order(nova))
        assert nova.asked == []
    until(lambda: nova.asked == [{"unpause": None}], 60)
    assert nova.tokens == {"t"}


def test_a_paused_server_runs_again_when_its_time_is_over(nova: Nova) -> None:
    with watchdog_client(nova) as ours:
        ours.arm("one", order(nova, seconds=0.5))
        until(lambda: nova.asked == [{"unpause": None}], 60)


def test_a_server_that_was_let_run_is_left_alone(nova: Nova) -> None:
    with watchdog_client(nova) as ours:
        ours.arm("one", order(nova, seconds=1.0))
        ours.disarm("one")
    until(lambda: not Path(f"/proc/{nova.watchdogs[0]}").exists(), 60)
    assert nova.asked == []


def test_a_cloud_that_fails_for_a_while_is_asked_again(nova: Nova) -> None:
    nova.failures = 3
    with watchdog_client(nova) as ours:
        ours.arm("one", order(nova))
    until(lambda: nova.asked == [{"unpause": None}], 60)


def test_a_pause_that_comes_after_its_service_has_died_is_taken_back(nova: Nova) -> None:
    nova.status, nova.task = "ACTIVE", None
    with watchdog_client(nova) as ours:
        ours.arm("one", order(nova))
    until(lambda: bool(nova.tokens), 60)
    nova.task = "pausing"
    nova.status, nova.task = "PAUSED", None
    until(lambda: nova.asked == [{"unpause": None}], 60)


@pytest.mark.parametrize(
    "since",
    [
        [("pause", "its owner"), ("unpause", OURS), ("pause", OURS)],
        # By another service that logs in as the same user, or by an administrator who does.
        [("pause", OURS), ("unpause", OURS), ("pause", OURS)],
        [("pause", OURS), ("reboot", "its owner"), ("pause", OURS)],
        [("pause", OURS), ("lock", "its owner"), ("unpause", "its owner"), ("pause", OURS)],
        # Ours never came.
        [("pause", "its owner")],
        [],
    ],
)
def test_a_pause_that_is_not_its_service_s_is_left_alone(nova: Nova, since: list[tuple[str, str]]) -> None:
    nova.history = [*since, *nova.history[1:]]
    with watchdog_client(nova) as ours:
        ours.arm("one", order(nova))
    until(lambda: not Path(f"/proc/{nova.watchdogs[0]}").exists(), 60)
    assert nova.asked == []


@pytest.mark.parametrize(
    "since",
    [
        # What did not come through ends nothing.
        [("unpause", OURS), ("pause", OURS)],
        # Nova did not know of the pause, and had to be asked again.
        [("pause", OURS), ("pause", OURS)],
        [("pause", OURS), ("start", "its owner")],
        [("lock", "its owner"), ("pause", OURS)],
    ],
)
def test_a_pause_of_its_service_is_ended_whatever_else_was_asked_for(nova: Nova, since: list[tuple[str, str]]) -> None:
    nova.history = [*since, *nova.history[1:]]
    with watchdog_client(nova) as ours:
        ours.arm("one", order(nova))
    until(lambda: nova.asked == [{"unpause": None}], 60)


def test_the_first_pause_of_a_server_is_ended(nova: Nova) -> None:
    nova.history = nova.history[:1]
    with watchdog_client(nova) as ours:
        ours.arm("one", {**order(nova), "after": None})
    until(lambda: nova.asked == [{"unpause": None}], 60)


def test_answers_of_another_form_do_not_end_the_watchdog(nova: Nova) -> None:
    nova.odd = [[], None, "x", {"server": []}, {"server": None}, {"server": {"status": 1}}, 3]
    with watchdog_client(nova) as ours:
        ours.arm("one", order(nova))
    until(lambda: nova.asked == [{"unpause": None}], 60)


def test_an_answer_without_end_is_broken_off_and_asked_for_again(nova: Nova) -> None:
    nova.endless = 2
    with watchdog_client(nova) as ours:
        ours.arm("one", order(nova))
    until(lambda: nova.asked == [{"unpause": None}], 60)
    # Besides what is read, buffers of the system hold some.
    assert nova.said < 2 * (watchdog.MOST_BYTES + (16 << 20))
