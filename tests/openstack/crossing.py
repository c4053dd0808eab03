"""The way from the service to the cloud, on which somebody can be killed before, at or after a request of choice."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

import requests

from tests.lab.openstack.services import HOST

_OWN_HEADERS: Final = frozenset(
    {"connection", "proxy-connection", "keep-alive", "transfer-encoding", "content-encoding"}
)
_PATIENCE: Final = 120.0


def describe(method: str, url: str, body: bytes) -> str:
    """What a request is for: the action of a server or volume, else method and collection."""
    parts = urlsplit(url).path.rstrip("/").split("/")
    if method == "POST" and parts[-1] == "action":
        ((action, arguments),) = json.loads(body).items()
        return f"{action} {arguments['status']}" if action == "os-reset_status" else str(action)
    known = [part for part in parts if part in ("snapshots", "volumes", "servers", "group_snapshots")]
    return f"{method} {known[-1] if known else parts[-1]}"


class Crossing:
    """A proxy; `kill` is called once, when the request that was named comes for the nth time.

    `side` is `before` (the cloud never hears of the request), `at` (the cloud hears of it after the blow, and its
    answer is passed on) or `after` (nobody hears the answer).
    """

    def __init__(self) -> None:
        self.url = ""
        self.passed: list[str] = []
        self._lock = threading.Lock()
        self._order: tuple[str, int, str, Callable[[], None]] | None = None
        self._struck = threading.Event()

    def order(self, request: str, number: int, side: str, kill: Callable[[], None]) -> None:
        with self._lock:
            self.passed.clear()
            self._struck.clear()
            self._order = (request, number, side, kill)

    def struck(self) -> bool:
        """Whether the order has been carried out, waited for."""
        return self._struck.wait(_PATIENCE)

    def side_of(self, request: str) -> str:
        """`before`, `at` or `after` if somebody is to die at this request, else nothing."""
        with self._lock:
            self.passed.append(request)
            if self._order is None or self._order[0] != request or self.passed.count(request) != self._order[1]:
                return ""
            return self._order[2]

    def strike(self) -> None:
        with self._lock:
            order, self._order = self._order, None
        assert order is not None
        order[3]()
        self._struck.set()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    crossing: Crossing

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        side = self.crossing.side_of(describe(self.command, self.path, body))
        if side == "before":
            self._end()
            return
        if side == "at":
            self.crossing.strike()
        try:
            reply = self._forward(body)
        except requests.RequestException:
            self.close_connection = True
            return
        if side == "after":
            self._end()
            return
        self.send_response(reply.status_code)
        for name, value in reply.headers.items():
            if name.lower() not in {*_OWN_HEADERS, "content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.content)))
        # Whoever asked may not have waited for it.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.content)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _pass_on  # noqa: N815 -- as they are called

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- as it is called
        pass

    def _forward(self, body: bytes) -> requests.Response:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _OWN_HEADERS}
        with requests.Session() as session:
            session.trust_env = False
            return session.request(
                self.command, self.path, data=body, headers=headers, allow_redirects=False, timeout=_PATIENCE
            )

    def _end(self) -> None:
        self.crossing.strike()
        self.close_connection = True


@contextmanager
def crossing() -> Iterator[Crossing]:
    """A proxy, until the block ends."""
    made = Crossing()
    handler = type("Handler", (_Handler,), {"crossing": made})
    server = ThreadingHTTPServer((HOST, 0), handler)
    made.url = f"http://{HOST}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
