"""The hosts that the service answers to."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from falcon.testing import TestClient

from stillframe import main, settings
from stillframe.api.hosts import known_hosts
from stillframe.domain.errors import InvalidInput
from tests.api.running import Running, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIST = "/volume/v3/p/instance-snapshots"


def said(api: Running, head: bytes) -> tuple[int, bytes]:
    """Send the head of a request as it stands; the status and the whole answer."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return int(answer.split()[1]), answer


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    overrides = (
        (None, "public_endpoint", "https://snapshots.example.org/below"),
        (None, "allowed_hosts", ["api1.internal", "192.0.2.7", "2001:db8::7"]),
    )
    with running(tmp_path_factory.mktemp("named"), *overrides) as api:
        yield api


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost.",
        "localhost:8790",
        "127.0.0.1",
        "127.9.9.9:1",
        "[::1]",
        "[::1]:8790",
        "[::ffff:127.0.0.1]",
        "snapshots.example.org",
        "SNAPSHOTS.example.org:443",
        "api1.internal:8790",
        "192.0.2.7",
        "[2001:db8::7]:8790",
    ],
)
def test_known_hosts_are_answered(named: Running, host: str) -> None:
    assert named.call("GET", LIST, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:8790", 421),
        ("xlocalhost", 421),
        ("192.0.2.8", 421),
        ("10.0.2.2:8790", 421),
        ("0.0.0.0", 421),  # noqa: S104
        ("[::]", 421),
        ("[2001:db8::8]", 421),
        ("2130706433", 421),
        ("127.1", 421),
        ("", 400),
        (":8790", 400),
        ("localhost, evil.example", 400),
        ("localhost:8790:8790", 400),
        ("localhost:port", 400),
        ("someone@localhost", 400),
        ("localhost/evil.example", 400),
        ("[fe80::1%25eth0]", 400),
        ("local host", 400),
    ],
)
def test_other_hosts_are_refused_and_nothing_is_done(named: Running, host: str, status: int) -> None:
    instance = named.instance()
    before = named.everything()
    reply = named.act(instance, {"vm-snapshot": {"name": "one"}}, headers={"Host": host})
    assert (reply.status_code, [*reply.json()]) == (status, ["badRequest"])
    assert reply.headers["X-Openstack-Request-Id"].startswith("req-")
    assert named.call("HEAD", LIST, headers={"Host": host}).content == b""
    assert named.everything() == before


def test_the_refusal_says_what_was_asked_for_and_how_to_allow_it(named: Running) -> None:
    reply = named.call("GET", LIST, headers={"Host": "api2.internal:8790"})
    message = reply.json()["badRequest"]["message"]
    assert message == (
        "The service does not answer to the host 'api2.internal:8790'; its operator can add it to allowed_hosts."
    )


def test_what_is_allowed_by_the_advice_is_answered() -> None:
    assert known_hosts("127.0.0.1").refusal("api2.internal:8790", "/") is not None
    assert known_hosts("127.0.0.1", allowed=["api2.internal"]).refusal("api2.internal:8790", "/") is None


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET %s HTTP/1.0\r\n\r\n", 400),
        (b"GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n", 200),
        (b"GET http://evil.example%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 421),
        (b"GET http://localhost%s HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 421),
        (b"GET http://localhost%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200),
        (b"GET %s HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 400),
        (b"GET %s HTTP/1.1\r\nHost: \xff\xfe\r\nConnection: close\r\n\r\n", 400),
        (b"GET %s HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: localhost\r\nConnection: close\r\n\r\n", 421),
    ],
)
def test_every_way_to_say_the_host_counts(api: Running, head: bytes, status: int) -> None:
    found, answer = said(api, head % LIST.encode())
    assert (found, b"X-Openstack-Request-Id: req-" in answer) == (status, True)


def test_what_a_proxy_says_that_its_client_has_asked_for_is_no_host_of_the_request(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    parsing = tmp_path_factory.mktemp("conf") / "stillframe.conf"
    parsing.write_text("[oslo_middleware]\nenable_proxy_headers_parsing = true\n")
    with running(tmp_path_factory.mktemp("proxied"), config_files=[str(parsing)]) as api:
        for header in ({"X-Forwarded-Host": "localhost"}, {"Forwarded": "host=localhost"}):
            assert api.call("GET", LIST, headers={"Host": "evil.example", **header}).status_code == 421
        # The proxy itself asks for the service by a known host; for whom it asks, its links say.
        reply = api.call("GET", "/", headers={"X-Forwarded-Host": "cloud.example.org", "X-Forwarded-Proto": "https"})
        assert "https://cloud.example.org/volume/v3/" in reply.text


def test_every_address_is_answered_and_no_other_name_by_one_that_listens_on_all() -> None:
    for bound in ("0.0.0.0", "::"):  # noqa: S104
        hosts = known_hosts(bound)
        assert hosts.refusal("192.0.2.1:8790", "/") is None
        assert hosts.refusal("[2001:db8::1]", "/") is None
        assert hosts.refusal("evil.example", "/") is not None
        assert hosts.refusal("0.0.0.0", "/") is not None  # noqa: S104


@pytest.mark.parametrize("entry", ["https://a.example", "a.example:8790", "*", ".a.example/x", ""])
def test_what_is_no_host_cannot_be_allowed(entry: str) -> None:
    with pytest.raises(InvalidInput, match="allowed_hosts"):
        known_hosts("127.0.0.1", allowed=[entry])


def test_health_is_told_to_whoever_asks_and_metrics_are_not(api: Running) -> None:
    assert api.call("GET", "/healthcheck", headers={"Host": "balancer"}).status_code == 200
    assert said(api, b"GET /healthcheck HTTP/1.0\r\n\r\n")[0] == 200
    for path in ("/metrics", "/openapi.json", "/", "/healthcheck/"):
        assert api.call("GET", path, headers={"Host": "evil.example"}).status_code == 421


def test_more_than_a_word_about_its_health_is_told_to_known_hosts_only(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    detailed = tmp_path_factory.mktemp("conf") / "stillframe.conf"
    detailed.write_text("[healthcheck]\ndetailed = true\n")
    with running(tmp_path_factory.mktemp("detailed"), config_files=[str(detailed)]) as api:
        json = {"Accept": "application/json"}
        assert "python_version" in api.call("GET", "/healthcheck", headers=json).json()
        assert api.call("GET", "/healthcheck", headers={**json, "Host": "evil.example"}).status_code == 421


def test_a_worker_shows_its_metrics_to_known_hosts_only(tmp_path: Path) -> None:
    overrides = [(None, "state_dir", str(tmp_path)), ("drivers", "compute", "memory"), ("drivers", "storage", "memory")]
    service = main.build(settings.load((), overrides), serve=False)
    wsgi = service.wsgi
    client = TestClient(lambda environ, start_response: wsgi(environ, start_response))  # noqa: PLW0108
    for path, evil in (("/metrics", 421), ("/healthcheck", 200)):
        assert client.simulate_get(path, headers={"Host": "localhost:8791"}).status_code == 200
        assert client.simulate_get(path, headers={"Host": "evil.example"}).status_code == evil
    service.stop()
