"""The API under gunicorn and behind HAProxy, set up by the files that we hand out."""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
import trustme

from stillframe import wsgi
from stillframe.domain.errors import InvalidInput
from tests.cli.program import Place, started
from tests.deploy.serving import DEPLOY, free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
#: Ways to write what is not for everybody, and one of what is not there.
OTHERS = (
    *("/metrics", "/metrics/", "/metrics?x=y", "//metrics", "/%6detrics", "/%6Detrics/", "/METRICS", "/metrics%2f"),
    *("/./metrics", "/v3x/../metrics", "/metrics;x", "/metrics%00", "http://127.0.0.1/metrics", "/healthcheck"),
    *("/healthcheck/", "//healthcheck", "/%68ealthcheck", "/compute/../metrics", "/v2x1/p/servers"),
)
SERVED = (
    *("/", "/compute", "/compute/v2.1", "/compute/v2.1/", "/volume/", "/volume/v3/", "/openapi.json"),
    *("/volume/v3/default/instance-snapshots", "/v3/default/instance-snapshots", "/v2.1/servers?limit=1"),
)
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "snapshots.pem"
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
    authority.cert_pem.write_to_path(str(path.with_name("authority.pem")))
    return path


@pytest.fixture
def gunicorn(place: Place) -> Iterator[str]:
    """The API under gunicorn; its address."""
    port = free_port()
    command = [
        *(str(Path(sys.executable).with_name("gunicorn")), "--config", str(DEPLOY / "gunicorn.conf.py")),
        *("--bind", f"127.0.0.1:{port}", "stillframe.wsgi:application()"),
    ]
    address = f"http://127.0.0.1:{port}"
    with serving(command, f"{address}/healthcheck", place.folder / "gunicorn.log", place.environment()):
        place.variables["STILLFRAME_ENDPOINT"] = address
        yield address
    assert "Traceback" not in (place.folder / "gunicorn.log").read_text()


def configured(folder: Path, certificate: Path, *ports: int) -> Path:
    """Our file for HAProxy, with other addresses; the first port is its own."""
    text = (DEPLOY / "haproxy.cfg").read_text()
    text = text.replace("/run/haproxy/admin.sock", str(folder / "admin.sock"))
    text = text.replace("/etc/haproxy/snapshots.pem", str(certificate)).replace(
        "bind :443", f"bind 127.0.0.1:{ports[0]}"
    )
    for number, port in enumerate(ports[1:], start=11):
        text = text.replace(f"192.0.2.{number}:8790", f"127.0.0.1:{port}")
    path = folder / "haproxy.cfg"
    path.write_text(text)
    return path


def test_gunicorn_serves_what_a_worker_works_off(place: Place, gunicorn: str) -> None:
    place.instance("i", root=b"r")
    assert requests.get(f"{gunicorn}/volume/v3/default/instance-snapshots", timeout=30).status_code == 401
    with started(place, "worker"):
        place.good("snapshot", "create", "s", "--instance", "i", "--wait")
        assert place.statuses() == {"s": "available"}
    for path in ("/metrics", "/healthcheck", "/openapi.json"):
        assert requests.get(gunicorn + path, timeout=30).status_code == 200


@needs_haproxy
def test_haproxy_takes_our_file_without_a_warning(tmp_path: Path, certificate: Path) -> None:
    path = configured(tmp_path, certificate, 8443, 8791, 8792)
    done = subprocess.run([str(HAPROXY), "-c", "-f", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, "WARNING" in done.stderr + done.stdout) == (0, False), done.stderr


@needs_haproxy
def test_haproxy_hands_requests_to_processes_that_are_up(place: Place, gunicorn: str, certificate: Path) -> None:
    port, up, down = free_port(), int(gunicorn.rpartition(":")[2]), free_port()
    path = configured(place.folder, certificate, port, down, up)
    address = f"https://127.0.0.1:{port}"
    authority = str(certificate.with_name("authority.pem"))
    command, log = [str(HAPROXY), "-db", "-f", str(path)], place.folder / "haproxy.log"
    with serving(command, f"{address}/healthcheck", log, {}):
        session = requests.Session()
        # The environment's own authorities would take the place of this one.
        session.trust_env = False
        session.verify = authority
        session.auth = ("alice", "right")
        replies = [session.get(f"{address}/volume/v3/default/instance-snapshots", timeout=30) for _ in range(4)]
        assert [reply.status_code for reply in replies] == [200] * 4
        # What is built from the request says what the client has asked for.
        lies = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Prefix": "/evil", "Forwarded": "host=evil.example"}
        versions = session.get(f"{address}/", timeout=30, headers=lies).json()["versions"]
        assert [version["links"][0]["href"].startswith(f"{address}/") for version in versions] == [True, True]
        assert "evil" not in json.dumps(versions)
        for other in OTHERS:
            status, said = asked(port, authority, other)
            assert (status, "stillframe_" in said) == (404, False), other
        for served in SERVED:
            assert asked(port, authority, served)[0] in (200, 300, 401), served


def asked(port: int, authority: str, path: str) -> tuple[int, str]:
    """Status and body of an answer; the path is sent as it stands."""
    connection = http.client.HTTPSConnection(
        "127.0.0.1", port, timeout=30, context=ssl.create_default_context(cafile=authority)
    )
    connection.putrequest("GET", path, skip_accept_encoding=True)
    connection.endheaders()
    reply = connection.getresponse()
    said = reply.read().decode()
    connection.close()
    return reply.status, said


def test_what_a_server_of_the_operators_cannot_be_given_is_refused(place: Place) -> None:
    text = place.config.read_text()
    place.config.write_text(text.replace("auth_strategy = http_basic", "auth_strategy = noauth"))
    with pytest.raises(InvalidInput, match="auth_strategy"):
        wsgi.application([str(place.config)])
    place.configure()
    with pytest.raises(InvalidInput, match="PostgreSQL"):
        wsgi.application([str(place.config)])
