"""What every request and reply has in common: ids, logs, heads, options, health."""

from __future__ import annotations

import io
import logging
import re
import socket
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from oslo_log.formatters import ContextFormatter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.api.running import Running

REQUEST_ID = re.compile(r"req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@contextmanager
def logged(api: Running) -> Iterator[io.StringIO]:
    """What the service writes into its log, in the form that oslo.log gives it."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(ContextFormatter(config=api.service.settings.conf))
    logger = logging.getLogger("stillframe")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield written
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@pytest.mark.parametrize(
    "path",
    ["/", "/healthcheck", "/metrics", "/openapi.json", "/nowhere", "/v3/p/instance-snapshots", "/v3/p/volumes/x"],
)
def test_every_reply_has_a_request_id_of_its_own(api: Running, path: str) -> None:
    ids = {api.call("GET", path).headers["X-Openstack-Request-Id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(REQUEST_ID.fullmatch(one) for one in ids)


def test_the_log_lines_of_a_request_carry_its_id(api: Running) -> None:
    instance = api.instance()
    with logged(api) as log:
        accepted = api.act(instance, {"vm-snapshot": {"name": "one"}})
        refused = api.act(instance, {"vm-snapshot": {}})
        api.wait(accepted.json()["instance_snapshot"]["task_uri"])
    lines = log.getvalue().splitlines()
    first, second = (reply.headers["X-Openstack-Request-Id"] for reply in (accepted, refused))
    assert any(first in line and "accepted snapshot" in line for line in lines)
    assert any(first in line and "status: 200" in line and instance.project_id in line for line in lines)
    assert any(second in line and "refused with 400: vm-snapshot.name" in line for line in lines)


def test_an_error_is_logged_with_its_traceback_under_the_id_that_the_reply_has(api: Running) -> None:
    instance = api.instance()
    fault = ("get_instance", instance.id)
    api.faults.fail(fault[0], RuntimeError("broken"), fault[1])
    with logged(api) as log:
        reply = api.act(instance, {"vm-snapshot": {"name": "one"}})
    api.faults.mend(*fault)
    assert reply.status_code == 500
    assert "Traceback" in log.getvalue()
    assert reply.headers["X-Openstack-Request-Id"] in log.getvalue()


def test_the_id_of_a_calling_service_is_logged_beside_our_own(api: Running) -> None:
    calling = f"req-{uuid.uuid4()}"
    with logged(api) as log:
        reply = api.call("GET", "/v3/p/instance-snapshots", headers={"X-Openstack-Request-Id": calling})
        api.call("GET", "/v3/p/instance-snapshots", headers={"X-Openstack-Request-Id": "anything\tgoes"})
    own = reply.headers["X-Openstack-Request-Id"]
    assert own != calling
    assert f"[{calling} {own} noauth p " in log.getvalue()
    assert "anything" not in log.getvalue()


def test_a_path_cannot_forge_log_lines(api: Running) -> None:
    with logged(api) as log:
        api.call("GET", "/nowhere%0areq-1 INFO all is well")
    assert len([line for line in log.getvalue().splitlines() if "middleware" in line]) == 1
    assert "%0Areq-1" in log.getvalue()


def test_a_head_is_a_get_without_its_body(api: Running) -> None:
    for path in ("/v3/p/instance-snapshots", "/v3/p/volumes/nowhere", "/", "/openapi.json", "/healthcheck"):
        get, head = api.call("GET", path), api.call("HEAD", path)
        assert head.content == b""
        if path != "/healthcheck":
            assert head.status_code == get.status_code
            assert head.headers["Content-Length"] == get.headers["Content-Length"]


def test_options_say_what_is_allowed_without_credentials(api: Running) -> None:
    reply = api.call("OPTIONS", "/volume/v3/p/instance-snapshots/one")
    assert (reply.status_code, reply.content) == (200, b"")
    assert {one.strip() for one in reply.headers["Allow"].split(",")} == {"GET", "HEAD", "PUT", "DELETE"}


def test_the_service_says_that_it_is_healthy(api: Running) -> None:
    assert api.call("GET", "/healthcheck").status_code == 200
    assert api.call("HEAD", "/healthcheck").status_code == 204


@pytest.mark.parametrize(
    "head",
    [
        b"GET /volume/v3/p/instance-snapshots HTTP/1.0\r\n\r\n",
        b"GET /volume/v3/p/instance-snapshots HTTP/1.1\r\nHost: \xff\xfe\r\nConnection: close\r\n\r\n",
        b"GET /%ff%c3 HTTP/1.1\r\nHost: localhost\r\nX-Auth-Token: \xff\xfe\r\nConnection: close\r\n\r\n",
        b"POST /v2.1/servers HTTP/1.1\r\nHost: localhost\r\nX-Auth-Token: \xff\r\nConnection: close\r\n\r\n",
    ],
)
def test_odd_heads_break_nothing(api: Running, head: bytes) -> None:
    host, _, port = api.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    status = int(answer.split()[1])
    assert status < 500
    assert b"Traceback" not in answer
    assert b"X-Openstack-Request-Id: req-" in answer
