"""The REST API of the simulated array, over HTTPS with a certificate of its own authority."""

from __future__ import annotations

import copy
import json
import secrets
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import trustme

from tests.lab.storage_virtualize import commands, views
from tests.lab.storage_virtualize.array import Array
from tests.lab.storage_virtualize.faults import Faults
from tests.lab.storage_virtualize.objects import Refusal

USER: Final = "stillframe"
PASSWORD: Final = "not a secret: this array is simulated"


class SimulatedArray:
    """An array that answers on a loopback port; `ca_file` is what its clients have to trust."""

    def __init__(self, array: Array, folder: Path, port: int = 0) -> None:
        self.array, self.faults = array, Faults()
        self.lock = threading.RLock()
        self.tokens: dict[str, float] = {}
        self.requests: deque[float] = deque()
        self.sign_ins: deque[float] = deque()
        self.refused_for_haste = 0
        self.ca_file = folder / f"{array.name}-ca.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_file))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
        self._server = _Server(("127.0.0.1", port), self, context)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def keep(self) -> Array:
        """A copy of everything the array holds, to be put back later."""
        with self.lock:
            self.array.advance()
            return copy.deepcopy(self.array, {id(self.array.clock): self.array.clock})

    def put_back(self, kept: Array) -> None:
        """Make the array what it was when it was kept; no time has passed for it."""
        with self.lock:
            clock = self.array.clock
            self.array = copy.deepcopy(kept, {id(kept.clock): clock})
            self.array.wake()

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes as a host reads them."""
        with self.lock:
            return self.array.read(name, offset, length)

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Write as a host does."""
        with self.lock:
            self.array.write(name, offset, data)

    def objects(self) -> dict[str, list[str]]:
        """The names of everything there is, to see what is left over."""
        with self.lock:
            self.array.advance()
            return {
                "vdisks": sorted(self.array.vdisks),
                "mappings": sorted(one.name for one in self.array.mappings.values()),
                "groups": sorted(self.array.groups),
                "snapshots": sorted(one.name for one in self.array.snapshots.values()),
            }

    def wait_for(self, objects: dict[str, list[str]], seconds: float = 60.0) -> None:
        """Wait until there is nothing else than these; what an array deletes by itself takes its time."""
        end = time.monotonic() + seconds
        while (present := self.objects()) != objects:
            assert time.monotonic() < end, present
            time.sleep(0.02)

    def sign_in(self, user: str | None, password: str | None) -> str | None:
        """A new token, or None."""
        if (user, password) != (USER, PASSWORD):
            return None
        token = secrets.token_hex(32)
        self.tokens[token] = time.monotonic() + self.array.behaviour.token_seconds
        return token

    def too_fast(self) -> bool:
        """Whether more requests came in this second than the array answers."""
        return self._is_over(self.requests, self.array.behaviour.requests_a_second)

    def no_more_tokens(self) -> bool:
        """Whether so many have signed in this second, or have a token that is good, that another one is refused."""
        behaviour, now = self.array.behaviour, time.monotonic()
        with self.lock:
            good = sum(until > now for until in self.tokens.values())
        if behaviour.tokens is not None and good >= behaviour.tokens:
            return True
        return self._is_over(self.sign_ins, behaviour.sign_ins_a_second)

    def _is_over(self, seen: deque[float], limit: float | None) -> bool:
        if limit is None:
            return False
        now = time.monotonic()
        with self.lock:
            while seen and seen[0] < now - 1:
                seen.popleft()
            if len(seen) >= limit:
                return True
            seen.append(now)
            return False

    def answer(self, command: str, subject: str | None, parameters: dict[str, Any]) -> Any:
        with self.lock:
            return commands.run(self.array, command, subject, parameters)

    def overview(self) -> dict[str, Any]:
        """Everything for the eyes of a person."""
        with self.lock:
            self.array.advance()
            return {
                "vdisks": [views.vdisk_row(self.array, one, in_bytes=True) for one in self.array.vdisks.values()],
                "mappings": [views.mapping_details(self.array, one) for one in self.array.mappings.values()],
                "groups": [views.group_row(self.array, one) for one in self.array.groups.values()],
            }


@contextmanager
def simulated(folder: Path, array: Array | None = None) -> Iterator[SimulatedArray]:
    """An array that answers until the context is left."""
    served = SimulatedArray(array or Array(), folder)
    served.start()
    try:
        yield served
    finally:
        served.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], served: SimulatedArray, context: ssl.SSLContext) -> None:
        super().__init__(address, _Handler)
        self.served = served
        self._context = context

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        # The handshake is left to the thread of the connection, so that a slow client holds nobody up.
        return self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are none of our business."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 120
    server: _Server

    @property
    def served(self) -> SimulatedArray:
        return self.server.served

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class names it so
        """Keep quiet; `Faults.commands` has what came in."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        if path.startswith("/lab/"):
            self._lab(path, body)
        elif self.served.faults.is_unreachable:
            self.close_connection = True
        elif self.served.too_fast() or (path == "/rest/v1/auth" and self.served.no_more_tokens()):
            self.served.refused_for_haste += 1
            self._reply(429, "Too many requests.")
        elif path == "/rest/v1/auth" and (said := self._said("auth")) is not None:
            self._say(said)
        elif path == "/rest/v1/auth":
            token = self.served.sign_in(self.headers.get("X-Auth-Username"), self.headers.get("X-Auth-Password"))
            self._reply(200, {"token": token}) if token else self._reply(403, "Authentication failed.")
        elif self.served.tokens.get(self.headers.get("X-Auth-Token", ""), 0) < time.monotonic():
            self._reply(403, "The token has expired or is not valid.")
        else:
            self._command([unquote(part) for part in path.split("/")[3:]], json.loads(body or b"{}"))

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {key: value[0] for key, value in parse_qs(parts.query).items()}
        if parts.path == "/lab/overview":
            self._reply(200, self.served.overview())
        elif parts.path.startswith("/lab/vdisks/"):
            length = int(query["length"]) if "length" in query else None
            self._bytes(self.served.read(unquote(parts.path[12:]), int(query.get("offset", 0)), length))
        else:
            self._reply(404, "There is no such resource.")

    def _command(self, parts: list[str], parameters: dict[str, Any]) -> None:
        command, subject = parts[0], parts[1] if len(parts) > 1 else None
        named = subject or str(parameters.get("name") or parameters.get("volumes", ""))
        fault = self.served.faults.next(command, named, force=bool(parameters.get("force")))
        way = fault.way if fault else ""
        if fault and way in ("busy", "expire", "break", "fail"):
            status = {"busy": 429, "expire": 403, "break": 502, "fail": 500}[way]
            self._reply(status, f"{fault.code} as the test wished" if way == "fail" else "as the test wished")
            return
        if fault and way == "say":
            self._say(fault.content)
            return
        if way == "lie":
            self._reply(200, {"id": "999", "message": "successfully created"} if command.startswith("mk") else None)
            return
        if way == "drop":
            self.close_connection = True
            return
        if fault and way == "hang":
            time.sleep(fault.seconds)
        try:
            status, answer = 200, self.served.answer(command, subject, parameters)
        except Refusal as refusal:
            status, answer = 500, str(refusal)
        if way == "lose":
            self.close_connection = True
            return
        if fault and way == "refuse after":
            status, answer = 500, f"{fault.code} as the test wished"
        self._reply(status, answer)

    def _said(self, command: str) -> str | None:
        faults = self.served.faults
        fault = faults.next(command, "", force=False) if faults.befalls(command) else None
        return fault.content if fault is not None and fault.way == "say" else None

    def _say(self, text: str) -> None:
        content = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _lab(self, path: str, body: bytes) -> None:
        if path.startswith("/lab/vdisks/"):
            query = parse_qs(urlsplit(self.path).query)
            self.served.write(unquote(path[12:]), int(query.get("offset", ["0"])[0]), body)
            self._reply(200, None)
            return
        wish = json.loads(body or b"{}")
        try:
            if path == "/lab/faults":
                self.served.faults.put(**wish)
            elif path == "/lab/unreachable":
                self.served.faults.unreachable(float(wish["seconds"]))
            elif path == "/lab/clear":
                self.served.faults.clear()
            elif path == "/lab/behaviour":
                for key, value in wish.items():
                    setattr(self.served.array.behaviour, key, value)
            elif path == "/lab/vdisks":
                with self.served.lock:
                    self.served.array.add_vdisk(wish["name"], int(wish["size"]))
            else:
                self._reply(404, "There is no such resource.")
                return
        except (KeyError, TypeError, ValueError, Refusal) as problem:
            self._reply(400, str(problem))
            return
        self._reply(200, None)

    def _reply(self, status: int, answer: Any) -> None:
        content = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _bytes(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
