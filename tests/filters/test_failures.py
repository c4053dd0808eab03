"""What becomes of requests when the service is not as it should be."""

from __future__ import annotations

import time
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
import requests
from paste import deploy

from stillframe import filters
from tests.api.running import running
from tests.filters.cloud import Recorder, answering, closed_port, cloud, configured, serving

if TYPE_CHECKING:
    from pathlib import Path

OURS: list[tuple[str, str, Any]] = [
    ("POST", "/compute/v2.1/p/servers/id/action", {"vm-snapshot": {"name": "x"}}),
    ("POST", "/v2.1/servers/id/action", {"vm_restore": {"instance_snapshot_id": "x"}}),
    ("GET", "/volume/v3/p/instance-snapshots", None),
    ("PUT", "/v3/p/instance-snapshots/id", {"instance-snapshot": {"name": "x"}}),
    ("DELETE", "/v3/p/instance-snapshots/id", None),
    ("POST", "/v3/p/volumes/id/action", {"copy-progress": {}}),
]
OTHERS: list[tuple[str, str, Any]] = [
    ("POST", "/compute/v2.1/p/servers/id/action", {"os-start": None}),
    ("GET", "/v2.1/servers", None),
    ("POST", "/v3/p/volumes/id/action", {"os-extend": {"new_size": 2}}),
    ("GET", "/volume/v3/p/volumes", None),
]


def call(method: str, url: str, body: Any = None) -> requests.Response:
    return requests.request(method, url, json=body, timeout=60)


def test_operations_are_unavailable_while_the_service_is_down_and_nothing_else_is(tmp_path: Path) -> None:
    with closed_port() as endpoint, cloud(tmp_path, endpoint=endpoint) as front:
        for method, path, body in OURS:
            reply = call(method, front + path, body)
            message = "The snapshot service does not answer; try again later."
            assert reply.json() == {"serviceUnavailable": {"code": 503, "message": message}}
            assert (reply.status_code, reply.headers["Content-Type"]) == (503, "application/json")
        head = call("HEAD", front + "/v3/p/instance-snapshots")
        assert (head.status_code, head.content) == (503, b"")
        assert [call(method, front + path, body).status_code for method, path, body in OTHERS] == [299] * len(OTHERS)


def test_a_slow_service_is_given_up_and_does_not_hold_up_what_is_not_for_it(tmp_path: Path) -> None:
    with running(tmp_path) as api, cloud(tmp_path, endpoint=api.url, timeout=0.4) as front:
        instance = api.instance()
        path = f"{front}/v2.1/{instance.project_id}/servers/{instance.id}/action"
        with api.faults.holding("get_instance"):
            begun = time.monotonic()
            assert call("POST", path, {"vm-snapshot": {"name": "x"}}).status_code == 503
            assert time.monotonic() - begun >= 0.4
            # Whatever waited for the service would be given up with 503, too.
            assert call("POST", path, {"os-start": None}).status_code == 299
        assert call("POST", path, {"vm-snapshot": {"name": "x"}}).status_code in (200, 409)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha",
        b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 200 + b"\r\n",
    ],
)
def test_an_answer_that_breaks_off_or_is_none_counts_as_no_answer(tmp_path: Path, answer: bytes) -> None:
    with answering(answer) as endpoint, cloud(tmp_path, endpoint=endpoint) as front:
        assert call("GET", f"{front}/v3/p/instance-snapshots").status_code == 503


def test_a_body_over_the_limit_is_refused_where_the_path_says_that_it_is_for_the_service(tmp_path: Path) -> None:
    recorder = Recorder()
    with serving(recorder) as url, cloud(tmp_path, endpoint=url, max_body_size=20) as front:
        for data in (b"x" * 21, iter([b"x" * 21])):
            reply = requests.put(f"{front}/v3/p/instance-snapshots/id", data=data, timeout=60)
            assert reply.json() == {
                "overLimit": {"code": 413, "message": "The body of the request is longer than 20 bytes."}
            }
        assert recorder.requests == []
        for sent in (b"x" * 20, iter([b"x" * 10, b"x" * 10])):
            assert requests.put(f"{front}/v3/p/instance-snapshots/id", data=sent, timeout=60).status_code == 200
        assert [one["body"] for one in recorder.requests] == [b"x" * 20] * 2


@pytest.mark.parametrize(
    ("marks", "status", "passed"),
    [
        ({"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}, "200 OK", [b"x" * 20]),
        # Where the server has left the chunks alone, reading would not end.
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, "200 OK", [b""]),
        ({}, "200 OK", [b""]),
        ({"wsgi.input_terminated": True}, "200 OK", [b""]),
    ],
)
def test_a_body_without_a_length_is_read_only_where_it_has_an_end(
    tmp_path: Path, marks: dict[str, Any], status: str, passed: list[bytes]
) -> None:
    recorder, statuses = Recorder(), []
    with serving(recorder) as url:
        app = deploy.loadapp(configured(tmp_path, endpoint=url, max_body_size=20))
        environ = {
            "REQUEST_METHOD": "PUT",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/inside/v3/p/instance-snapshots/id",
            "SERVER_NAME": "cloud",
            "SERVER_PORT": "80",
            "wsgi.url_scheme": "https",
            "wsgi.input": BytesIO(b"x" * 20),
            "openstack.request_id": "req-of-cinder",
            "HTTP_X_OPENSTACK_REQUEST_ID": "nonsense",
            **marks,
        }
        list(app(environ, lambda status, _headers: statuses.append(status)))
    assert statuses == [status]
    assert [one["body"] for one in recorder.requests] == passed
    assert recorder.requests[0]["HTTP_X_OPENSTACK_REQUEST_ID"] == "req-of-cinder"
    assert recorder.requests[0]["HTTP_X_FORWARDED_PROTO"] == "https"


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint": "127.0.0.1:8790"},
        {"endpoint": "ftp://host"},
        {"endpoint": "http://user:secret@host"},
        {"endpoint": "http://host:port"},
        {"endpoint": "http://host/?a=b"},
        {"timeout": "0"},
        {"timeout": "nan"},
        {"timeout": "inf"},
        {"max_body_size": "-1"},
        {"cafile": "/etc/ssl/ca.pem"},
        {"endpoint": "https://host", "cafile": "/nowhere.pem"},
        {"endpont": "http://host"},
    ],
)
@pytest.mark.parametrize("factory", [filters.nova, filters.cinder])
def test_the_api_does_not_start_with_options_that_cannot_work(factory: Any, options: dict[str, str]) -> None:
    with pytest.raises((ValueError, OSError)):
        factory({}, **options)
