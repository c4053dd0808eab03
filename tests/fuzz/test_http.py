"""Raw bytes at the running server: it answers or closes, never with a 500, never dies, and takes no more memory."""

from __future__ import annotations

import errno
import json
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.attacks.greed import connected
from tests.cli.program import Place, Process, started

if TYPE_CHECKING:
    from collections.abc import Iterator

_CASES: Final = 700
_PATIENCE: Final = 20.0
#: Nothing that is sent is longer than a few kilobytes but for what is said to be.
_MOST_GROWTH: Final = 150.0
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3}) ")

FUZZ: Final = settings(
    max_examples=_CASES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    place = Place(tmp_path_factory.mktemp("fuzz"))
    place.configure(auth_strategy="noauth")
    with started(place, "serve") as served:
        url = next(word for word in served.said.split() if word.startswith("http://"))
        assert requests.get(f"{url}/openapi.json", timeout=30).status_code == 200
        before = memory(served)
        yield served
        # It is there, it is the same, and it is no bigger.
        assert served.process.poll() is None
        assert requests.get(f"{url}/openapi.json", timeout=30).status_code == 200
        assert memory(served) - before < _MOST_GROWTH
        assert "Traceback" not in served.log.read_text()


@pytest.fixture(scope="module")
def url(process: Process) -> str:
    return next(word for word in process.said.split() if word.startswith("http://"))


def memory(process: Process) -> float:
    """MiB that the process has in memory."""
    return int(Path(f"/proc/{process.process.pid}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024


# What it is called depends on what we were at when the server had enough.
_HUNG_UP: Final = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN})


def said_to(url: str, *parts: bytes) -> list[int]:
    """The statuses of what a server answers to bytes, until it closes, after which nothing more comes."""
    answer = b""
    with connected(url, _PATIENCE) as connection:
        try:
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(1 << 16):
                answer += chunk
        except OSError as problem:
            if problem.errno not in _HUNG_UP:
                raise
    statuses = [int(one) for one in _STATUS.findall(answer)]
    assert not [one for one in statuses if one >= 500 and one != 501], answer[:500]
    return statuses


_TOKENS: Final = st.sampled_from(
    [
        *(b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH", b"CONNECT", b"get", b"\x00", b"", b"G\tT"),
        *(b" ", b"  ", b"\t", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b":", b": ", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0"),
        *(b"/", b"//", b"/volume/v3/p/instance-snapshots", b"/compute/v2.1/p/servers/x/action", b"/healthcheck", b"*"),
        *(b"?limit=1", b"?limit=-1", b"?marker=%ff", b"%00", b"%2e%2e", b"#", b"http://[::1", b"http://x:99999/"),
        *(b"Host: localhost", b"Host", b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 1e3"),
        *(b"Content-Length: 99999999999999999999", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked"),
        *(b"Expect: 100-continue", b"Connection: close", b"Content-Type: application/json", b"X-Auth-Token: a:b"),
        *(
            b"5\r\nhello\r\n",
            b"0\r\n\r\n",
            b"ffffffffffffffffff\r\n",
            b"-5\r\n",
            b"{}",
            b"[" * 2000,
            b"\xff\xfe",
            b"x" * 9000,
        ),
    ]
)
_JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=20), inner, max_size=5),
    max_leaves=30,
)
_ACTIONS: Final = st.sampled_from(
    ["vm-snapshot", "vm-restore", "os-start", "os-stop", "copy-progress", "vm_snapshot", "x"]
)
_HARD_BODIES: Final = st.sampled_from(
    [
        *(b"[" * depth for depth in (100, 5000, 60000)),
        *(b'{"vm-snapshot":' * depth for depth in (50, 4000)),
        *(b"9" * 60000, b"-1e999999999", b'"' + b"\\ud800" * 9000 + b'"', b'{"a":1,"a":2}', b"\xff" * 60000, b"NaN"),
        *(
            b'{"vm-snapshot":{"name":"' + b"x" * 60000 + b'"}}',
            b'{"vm-snapshot":{"volumes":[' + b'"v",' * 15000 + b'"v"]}}',
        ),
        *(b"{" + b",".join(b'"%d":1' % n for n in range(6000)) + b"}", b" " * 65536, b" " * 200000, b"\x00" * 100),
    ]
)


@FUZZ
@given(st.lists(_TOKENS | st.binary(max_size=30), max_size=25))
def test_any_bytes(url: str, parts: list[bytes]) -> None:
    said_to(url, b"".join(parts))


@FUZZ
@given(
    method=st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"HEAD"]),
    path=st.lists(
        st.sampled_from([b"v3", b"p", b"volume", b"instance-snapshots", b"x"]) | st.binary(max_size=12), max_size=7
    ),
    headers=st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=30)), max_size=6),
    cuts=st.integers(min_value=1, max_value=9),
)
def test_any_path_and_headers(
    url: str, method: bytes, path: list[bytes], headers: list[tuple[bytes, bytes]], cuts: int
) -> None:
    lines = [method + b" /" + b"/".join(path).replace(b" ", b"%20") + b" HTTP/1.1", b"Host: localhost"]
    lines += [name + b": " + value for name, value in headers]
    whole = b"\r\n".join(lines) + b"\r\n\r\n"
    size = max(1, len(whole) // cuts)
    said_to(url, *(whole[start : start + size] for start in range(0, len(whole), size)))


@FUZZ
@given(
    body=_HARD_BODIES
    | st.binary(max_size=200)
    | st.builds(lambda key, value: json.dumps({key: value}).encode(), _ACTIONS, _JSON),
    chunks=st.none() | st.lists(st.integers(min_value=1, max_value=5000), min_size=1, max_size=4),
    target=st.sampled_from([b"POST /compute/v2.1/p/servers/x/action", b"PUT /volume/v3/p/instance-snapshots/x"]),
    spoilt=st.none() | st.binary(min_size=1, max_size=6),
)
def test_any_body(url: str, body: bytes, chunks: list[int] | None, target: bytes, spoilt: bytes | None) -> None:
    head = target + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    if chunks is None:
        statuses = said_to(url, head, b"Content-Length: %d\r\n\r\n" % len(body), body)
        assert statuses
        assert all(400 <= status < 500 for status in statuses)
        return
    parts: list[bytes] = []
    at = 0
    while at < len(body):
        size = chunks[len(parts) % len(chunks)]
        parts.append(b"%x\r\n%b\r\n" % (len(body[at : at + size]), body[at : at + size]))
        at += size
        if len(parts) > 40:
            break
    said_to(url, head, b"Transfer-Encoding: chunked\r\n\r\n", *parts, spoilt or b"0\r\n\r\n")
