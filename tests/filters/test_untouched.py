"""Every request that is not Stillframe's reaches the API byte for byte."""

from __future__ import annotations

import gzip
import json
from base64 import b64decode
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st
from paste import deploy

from tests.filters.cloud import closed_port, cloud, configured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

LIMIT = 300
OURS = {
    "nova": [b'{"vm-snapshot": {"name": "x"}}', b'{"vm_restore": {"instance_snapshot_id": "x"}}'],
    "cinder": [b'{"copy-progress": {"details": false}}', b'{"copy_progress": {}}'],
}
ACTIONS = {"nova": "/servers/id/action", "cinder": "/volumes/id/action"}
FOREIGN = [
    b"", b"{}", b"[]", b'["vm-snapshot"]', b'"vm-snapshot"', b"null", b"{", b"\xff\xfe", b"vm-snapshot",
    b'{"vm-snapshot": {"name": "x"}, "os-start": null}', b'{"os-start": null, "copy-progress": {}}',
    b'{"VM-SNAPSHOT": {}}', b'{"vm snapshot": {}}', b'{"vm-snapshot": {}', b'{"createImage": {"name": "vm-snapshot"}}',
    b'{"x": {"vm-snapshot": {}}}', b"[" * 290, gzip.compress(b'{"vm-snapshot": {}}', mtime=0),
    b'{"vm-snapshot": {"name": "' + b"x" * LIMIT + b'"}}',
    '{"vm-snapshot": {}}'.encode("utf-16"),
]  # fmt: skip


class Arriving(BytesIO):
    """A body on its way: who reads past its end, or all of what has no end, would wait for ever."""

    def __init__(self, body: bytes, length: int | None) -> None:
        super().__init__(body)
        self.length = length

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert self.length is not None
        assert 0 <= size <= self.length - self.tell()
        # As a slow connection does.
        return super().read(min(size, 7))


@dataclass(frozen=True)
class Asked:
    """`mount` is in SCRIPT_NAME, or where `inside`, at the beginning of the path."""

    method: str
    mount: str
    path: str
    body: bytes
    headers: dict[str, str]
    length: str | None
    inside: bool = False

    def environ(self) -> WSGIEnvironment:
        environ: WSGIEnvironment = {
            "REQUEST_METHOD": self.method,
            "SCRIPT_NAME": "" if self.inside else self.mount,
            "PATH_INFO": (self.mount if self.inside else "") + self.path,
            "QUERY_STRING": "vm-snapshot",
            "SERVER_NAME": "cloud",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
            "wsgi.input": Arriving(self.body, len(self.body) if self.length is not None else None),
            **self.headers,
        }
        if self.length is not None:
            environ["CONTENT_LENGTH"] = self.length
        return environ


@st.composite
def not_ours(draw: st.DrawFn, kind: str) -> Asked:
    """Near misses: what is Stillframe's in all but one respect, and what has nothing to do with it."""
    version = draw(st.sampled_from({"nova": ["/v2.1", "/v2"], "cinder": ["/v3"]}[kind]))
    mount = draw(st.sampled_from(["", "/compute", "/volume", "/front", "/caf\xc3\xa9"])) + version
    path = draw(st.sampled_from(["", "/project"])) + ACTIONS[kind]
    method, headers, body = "POST", {}, draw(st.sampled_from(OURS[kind]))
    length: str | None = str(len(body))
    miss = draw(st.sampled_from(["method", "path", "body", "encoding", "length", "version", "anything"]))
    if miss == "method":
        method = draw(st.sampled_from(["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "post", "FOO"]))
    elif miss == "path":
        path = draw(foreign_path(kind))
    elif miss == "body":
        foreign = [one for one in FOREIGN if one not in OURS[kind]] + OURS["cinder" if kind == "nova" else "nova"]
        body = draw(st.sampled_from(foreign) | st.binary(max_size=400).filter(lambda one: not one.startswith(b"{")))
        length = str(len(body))
    elif miss == "encoding":
        headers = {"HTTP_CONTENT_ENCODING": "gzip"}
        body = draw(st.sampled_from([body, gzip.compress(body, mtime=0)]))
        length = str(len(body))
    elif miss == "length":
        # Chunks have none; servers let nonsense through.
        length = draw(st.sampled_from([None, "", "-1", "+5", "1_0", "ten", "\xb2", "0"]))
        headers = draw(st.sampled_from([{}, {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}]))
    elif miss == "version":
        mount = draw(st.sampled_from(["", "/", "/v1", "/v2.10", "/v21", "/v4", "/xv3", "/v3x"]))
    else:
        path, body = draw(foreign_path(kind)), draw(st.binary(max_size=400))
        method = draw(st.sampled_from(["GET", "POST", "PUT"]))
        length = draw(st.sampled_from([None, str(len(body))]))
    return Asked(method, mount, path, body, headers, length, inside=draw(st.booleans()))


def foreign_path(kind: str) -> st.SearchStrategy[str]:
    known = [
        "", "/", "//", "/servers", "/servers/id", "/project/servers/id/actions", "/servers/id/action/x",
        "/servers//action",
        "/p/q/servers/id/action", "/flavors/id/action", "/project/volumes", "/project/volumes/id", "/volumes/id",
        "/p/q/volumes/id/action", "/volumes//action", "/snapshots",
        "/project/snapshots", "/project/instance-snapshotsx", "/project/xinstance-snapshots",
        "/project/volumes/id/action/instance-snapshots", "/p/q/instance-snapshots", "//instance-snapshots",
        "/project/instance_snapshots", "/servers/id/action\n", "/project/instance-snapshots\n",
    ]  # fmt: skip
    if kind == "nova":
        known += ["/volumes/id/action", "/instance-snapshots"]
    segments = st.lists(st.text(st.characters(max_codepoint=255), max_size=8).filter(lambda one: "/" not in one))
    return st.sampled_from(known) | segments.map(lambda some: "/x" + "".join(f"/{one}" for one in some))


class Cloud:
    """The application behind: it keeps what arrives."""

    def __init__(self) -> None:
        self.arrived: list[tuple[dict[str, Any], bytes]] = []

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        stream = environ["wsgi.input"]
        body = stream.getvalue() if isinstance(stream, Arriving) else stream.read()
        rest = {name: value for name, value in environ.items() if name != "wsgi.input"}
        if isinstance(stream, Arriving):
            assert stream.tell() == 0, "something has been read, and not put back"
        self.arrived.append((rest, body))
        start_response("299 Cloud", [])
        return []


@pytest.fixture(scope="module")
def surround(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, WSGIApplication], WSGIApplication]]:
    """The real filters around an application, with a service that is down: what goes there is seen by its 503."""
    with closed_port() as endpoint:
        uri = configured(tmp_path_factory.mktemp("filters"), endpoint=endpoint, max_body_size=LIMIT)
        yield lambda kind, app: deploy.loadfilter(uri, name=f"stillframe_{kind}")(app)


def check(surround: Callable[[str, WSGIApplication], WSGIApplication], kind: str, asked: Asked) -> None:
    behind, statuses = Cloud(), []
    environ = asked.environ()
    sent = {name: value for name, value in environ.items() if name != "wsgi.input"}
    body = b"".join(surround(kind, behind)(environ, lambda status, *_: statuses.append(status)))  # type: ignore[arg-type]
    assert (statuses, body) == (["299 Cloud"], b"")
    assert behind.arrived == [(sent, asked.body)]


@settings(max_examples=400, deadline=None)
@given(asked=not_ours("nova"))
@example(Asked("POST", "/v2.1", "/p/servers/id/action", OURS["nova"][0], {}, None))
def test_what_is_not_ours_reaches_nova_byte_for_byte(
    surround: Callable[[str, WSGIApplication], WSGIApplication], asked: Asked
) -> None:
    check(surround, "nova", asked)


@settings(max_examples=400, deadline=None)
@given(asked=not_ours("cinder"))
def test_what_is_not_ours_reaches_cinder_byte_for_byte(
    surround: Callable[[str, WSGIApplication], WSGIApplication], asked: Asked
) -> None:
    check(surround, "cinder", asked)


@pytest.mark.parametrize("body", FOREIGN)
def test_bodies_that_clients_get_wrong_are_nothing_for_the_log(
    surround: Callable[[str, WSGIApplication], WSGIApplication], caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    check(surround, "nova", Asked("POST", "/v2.1", "/servers/id/action", body, {}, str(len(body))))
    assert caplog.records == []


class Broken(Arriving):
    """A connection that breaks."""

    def read(self, _size: int | None = -1, /) -> bytes:
        raise OSError("the client has gone")


def test_a_body_that_cannot_be_read_is_left_to_the_application(
    surround: Callable[[str, WSGIApplication], WSGIApplication],
) -> None:
    behind, statuses = Cloud(), []
    asked = Asked("POST", "/v2.1", "/servers/id/action", OURS["nova"][0], {}, str(len(OURS["nova"][0])))
    stream = Broken(asked.body, len(asked.body))
    environ = asked.environ() | {"wsgi.input": stream}
    list(surround("nova", behind)(environ, lambda status, *_: statuses.append(status)))  # type: ignore[arg-type]
    assert statuses == ["299 Cloud"]
    assert environ["wsgi.input"] is stream


@pytest.mark.parametrize("mount", ["/v2.1", "/v2", "/compute/v2.1", "/inside/v2.1"])
def test_an_action_of_nova_arrives_over_http(tmp_path: Any, mount: str) -> None:
    body = json.dumps({"os-getConsoleOutput": {"length": 5}}).encode() + b" \n"
    path = f"{mount}/p/servers/" + quote("ä b") + "/action?x=%20&y"
    with closed_port() as endpoint, cloud(tmp_path, endpoint=endpoint) as front:
        for data in (body, iter([body[:9], body[9:]])):  # the second one goes in chunks
            reply = requests.post(front + path, data=data, headers={"X-Roles": "admin"}, timeout=60)
            assert reply.status_code == 299
            told = reply.json()["told"]
            assert b64decode(reply.json()["body"]) == body
            whole = told["SCRIPT_NAME"] + told["PATH_INFO"]
            assert (whole, told["QUERY_STRING"]) == (
                f"{mount}/p/servers/Ã¤ b/action",
                "x=%20&y",
            )
            assert told["HTTP_X_ROLES"] == "admin"
