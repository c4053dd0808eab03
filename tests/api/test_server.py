"""What the HTTP server answers by itself, and the versions that replies and requests name."""

from __future__ import annotations

import json
import re
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.api.test_requests import logged

if TYPE_CHECKING:
    from tests.api.running import Running

HEAD = b"POST /v2.1/p/servers/s/action HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def exchange(api: Running, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """One request in raw bytes; status, headers in small letters, and body."""
    address = urlsplit(api.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(sent)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers, body


@pytest.mark.parametrize(
    ("sent", "status", "name"),
    [
        (HEAD + b"Content-Length: 2000000\r\n\r\n", 413, "overLimit"),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400, "badRequest"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 400, "badRequest"),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 501, "notImplemented"),
        ((HEAD + b"X-Long: ").ljust(32768, b"x"), 431, "badRequest"),
        (HEAD + b"X-Long: " + b"x" * 200_000 + b"\r\n\r\n", 431, "badRequest"),
        (b"nonsense\r\n\r\n", 400, "badRequest"),
        (b"get / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "badRequest"),
        (b"FOO / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 501, "notImplemented"),
    ],
    ids=["body", "length", "chunk", "transfer", "head", "longer head", "line", "case", "method"],
)
def test_whoever_answers_answers_alike(api: Running, sent: bytes, status: int, name: str) -> None:
    with logged(api) as log:
        found, headers, body = exchange(api, sent)
    assert (found, headers["content-type"]) == (status, "application/json")
    document = json.loads(body)
    assert document.keys() == {name}
    assert document[name]["code"] == status
    assert document[name]["message"]
    assert len(body) == int(headers["content-length"])
    assert re.fullmatch(r"req-[0-9a-f-]{36}", headers["x-openstack-request-id"])
    (line,) = [one for one in log.getvalue().splitlines() if "refused with" in one]
    assert headers["x-openstack-request-id"] in line


COMPUTE, VOLUME = "/compute/v2.1/p/servers", "/volume/v3/p/instance-snapshots"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (COMPUTE, {}, 200),
        (COMPUTE, {"OpenStack-API-Version": "compute 2.1"}, 200),
        (COMPUTE, {"OpenStack-API-Version": "compute latest"}, 200),
        (COMPUTE, {"OpenStack-API-Version": "volume 3.59, compute 2.1"}, 200),
        (COMPUTE, {"OpenStack-API-Version": "volume 3.59"}, 200),
        (COMPUTE, {"X-OpenStack-Nova-API-Version": "2.1"}, 200),
        (COMPUTE, {"OpenStack-API-Version": "compute 2.96"}, 406),
        (COMPUTE, {"OpenStack-API-Version": "Compute  2.96"}, 406),
        (COMPUTE, {"OpenStack-API-Version": "volume 3.0, compute 2.2"}, 406),
        (COMPUTE, {"X-OpenStack-Nova-API-Version": "2.3"}, 406),
        ("/v2.1/servers/x/action", {"OpenStack-API-Version": "compute 2.96"}, 406),
        (COMPUTE, {"OpenStack-API-Version": "compute"}, 400),
        (COMPUTE, {"OpenStack-API-Version": "compute two"}, 400),
        (COMPUTE, {"OpenStack-API-Version": "compute 2.1.1"}, 400),
        (VOLUME, {"OpenStack-API-Version": "volume 3.0"}, 200),
        (VOLUME, {"OpenStack-API-Version": "compute 2.96"}, 200),
        (VOLUME, {"OpenStack-API-Version": "volume 3.67"}, 406),
        ("/v3/instance-snapshots", {"OpenStack-API-Version": "volume 3.67"}, 406),
        ("/", {"OpenStack-API-Version": "compute 2.96"}, 300),
        ("/compute/v2.1/", {"OpenStack-API-Version": "compute 2.96"}, 200),
    ],
)
def test_versions_that_are_not_there_are_refused(api: Running, path: str, headers: dict[str, str], status: int) -> None:
    reply = api.call("GET", path, headers=headers)
    assert reply.status_code == status, reply.text
    assert reply.headers["X-Openstack-Request-Id"]
    if status == 406:
        number = "2.1" if "v2.1" in path else "3.0"
        assert f"Minimum is {number} and maximum is {number}." in reply.json()["computeFault"]["message"]


def test_every_reply_of_an_api_says_which_version_it_is_of(api: Running) -> None:
    for path in (COMPUTE, "/v2.1/nowhere", f"{COMPUTE}/nowhere"):
        headers = api.call("GET", path).headers
        assert headers["OpenStack-API-Version"] == "compute 2.1"
        assert headers["X-OpenStack-Nova-API-Version"] == "2.1"
        assert headers["Vary"] == "OpenStack-API-Version, X-OpenStack-Nova-API-Version"
    for path in (VOLUME, "/v3/p/nowhere"):
        headers = api.call("GET", path).headers
        assert (headers["OpenStack-API-Version"], headers["Vary"]) == ("volume 3.0", "OpenStack-API-Version")
    assert "OpenStack-API-Version" not in api.call("GET", "/").headers
