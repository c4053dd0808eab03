"""A server on loopback that answers over HTTP as nobody should."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

Way = Callable[[socket.socket], None]

# It hangs up after each answer, and says so, or a client could take the connection for one that goes on.
_HEAD: Final = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n"
_PIECE: Final = b"x" * (1 << 16)


@dataclass
class Hostile:
    """Where it is, and what it was sent; `way` may be changed at any time."""

    url: str
    way: Way
    heard: list[bytes] = field(default_factory=list)


def plain(content: bytes, head: bytes = _HEAD) -> Way:
    """One whole answer."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(content) + content)

    return answer


def _drip(first: bytes, piece: bytes = b" ") -> Way:
    def answer(connection: socket.socket) -> None:
        connection.sendall(first)
        while True:
            connection.sendall(piece)
            time.sleep(0.05)

    return answer


def _flood(first: bytes, piece: bytes = _PIECE) -> Way:
    def answer(connection: socket.socket) -> None:
        connection.sendall(first)
        while True:
            connection.sendall(piece)

    return answer


def _silent(connection: socket.socket) -> None:
    connection.recv(1)


def _hang_up(_connection: socket.socket) -> None:
    return


#: Answers that no speaker may hold us up by, or fill our memory with.
WAYS: Final[dict[str, Way]] = {
    "says nothing": _silent,
    "hangs up": _hang_up,
    "drips a body": _drip(_HEAD + b"Content-Length: 100000\r\n\r\n"),
    "drips a body without an end": _drip(_HEAD + b"\r\n"),
    "drips chunks": _drip(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "drips a status line": _drip(b"HTTP/1.1 20"),
    "drips a header": _drip(_HEAD, b"x"),
    "drips headers": _drip(_HEAD, b"X-A: b\r\n"),
    "asks to go on and on": _drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "floods without a length": _flood(_HEAD + b"\r\n"),
    "floods one string": _flood(_HEAD + b"\r\n" + b'"'),
    "floods headers": _flood(_HEAD, b"X-A: " + b"b" * 60000 + b"\r\n"),
    "floods a header": _flood(_HEAD + b"X-A: "),
    "floods a status line": _flood(b""),
    "floods chunks": _flood(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + _PIECE + b"\r\n"),
    "floods a chunk's size": _flood(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * (1 << 16)),
    "floods trailers": _flood(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: b\r\n" * 5000),
    "floods with going on": _flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "promises more than comes": plain(b"{}", _HEAD + b"Content-Length: 1000000000000\r\n"),
    "says a length below nothing": plain(b"", _HEAD + b"Content-Length: -5\r\nX: "),
    "is compressed a thousandfold": plain(gzip.compress(b" " * (64 << 20)), _HEAD + b"Content-Encoding: gzip\r\n"),
    "is a page of a proxy's": plain(b"<html><body>Please log in</body></html>", _HEAD.replace(b"json", b"html")),
    "is nested very deep": plain(b"[" * 100_000),
    "is nested very deep in objects": plain(b'{"a":' * 100_000),
    "is cut short": plain(b'{"token": "abc'),
    "is many very small things": plain(b"[" + b"{}," * 5_000_000 + b"{}]"),
    "is no number": plain(b'{"token": NaN}'),
    "is a number of a million digits": plain(b"9" * 1_000_000),
    "is half of a surrogate": plain(b'{"token": "\\ud800"}'),
    "is no text": plain(b'{"token": "\xff\xfe"}'),
    "is null": plain(b"null"),
    "is of another shape": plain(b'{"token": {"a": 1}}'),
    "is a token with a line's end": plain(b'{"token": "a\\r\\nX-Injected: yes"}'),
    "is no HTTP": plain(b"", b"SSH-2.0-OpenSSH_9.2\r\n"),
    "is an error without a reason": plain(b"", b"HTTP/1.1 500 \r\n"),
    "is a status of its own": plain(b"{}", b"HTTP/1.1 999 Whatever\r\n"),
}


def redirect(location: str) -> Way:
    """Leads elsewhere."""
    return plain(b"", b"HTTP/1.1 307 Go\r\nLocation: " + location.encode() + b"\r\n")


@contextmanager
def hostile(way: Way, tls: ssl.SSLContext | None = None) -> Iterator[Hostile]:
    """A server that answers every request in one way, until the context is left; over TLS where it is given one."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        scheme = "http" if tls is None else "https"
        server = Hostile(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", way)

        def serve(bare: socket.socket) -> None:
            bare.settimeout(60)
            with bare, contextlib.suppress(OSError):
                connection = bare if tls is None else tls.wrap_socket(bare, server_side=True)
                with connection:
                    speak(connection)

        def speak(connection: socket.socket) -> None:
            with contextlib.suppress(OSError):
                server.heard.append(connection.recv(1 << 16))
                server.way(connection)
                # Whoever hangs up on bytes that it has not read takes its own answer back.
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    continue

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
