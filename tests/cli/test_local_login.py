"""The token of the service of this machine: found by itself, and sent to nobody else."""

from __future__ import annotations

import argparse
import http.server
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from keystoneauth1 import loading, session

from stillframe import settings
from stillframe.api.auth.token_file import ensure, path_of
from stillframe.cli import health
from stillframe.cli.connection import open_client
from stillframe.cli.exit_codes import CommandFailed
from stillframe.cli.local_service import login
from stillframe.cli.options import add_connection_options
from stillframe.drivers.finding import Level
from tests.cli.program import started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stillframe.cli.client import Client
    from stillframe.settings import Settings
    from tests.cli.program import Place

NOBODY = 65534
SNAPSHOTS = "/volume/v3/default/instance-snapshots"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user")


@dataclass
class Listener:
    """Somebody who listens on a port and notes what is sent there."""

    port: int
    heard: list[dict[str, str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def secrets(self) -> list[str]:
        credentials = ("x-auth-token", "authorization", "cookie", "proxy-authorization")
        return [value for headers in self.heard for name, value in headers.items() if name.lower() in credentials]


@contextmanager
def listening(*replies: object, status: int = 200, host: str = "127.0.0.1", **headers: str) -> Iterator[Listener]:
    """Answer with one reply after the other, and with the last one from then on."""
    bodies = [json.dumps(reply).encode() for reply in replies or ({"instance_snapshots": []},)]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = bodies[min(len(listener.heard), len(bodies) - 1)]
            listener.heard.append(dict(self.headers))
            listener.asked.append(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kind = type("Server", (http.server.ThreadingHTTPServer,), {"address_family": family})
    server = kind((host, 0), Handler)
    listener = Listener(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        server.shutdown()
        server.server_close()


def chosen(folder: Path, port: int, **options: object) -> Settings:
    overrides = [(None, "state_dir", str(folder)), (None, "bind_port", port)]
    return settings.load((), [*overrides, *((None, name, value) for name, value in options.items())])


def client(found: Settings, **options: Any) -> Client:
    parser = argparse.ArgumentParser()
    add_connection_options(parser)
    # Whatever the environment of the tests says.
    defaults = vars(parser.parse_args([]))
    unsaid = {name: "" if isinstance(value, str) else value for name, value in defaults.items()}
    return open_client(argparse.Namespace(**{**unsaid, **options}), lambda: found)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ""])
def test_the_service_of_this_machine_gets_its_token(tmp_path: Path, host: str) -> None:
    token = ensure(tmp_path)
    with listening() as service:
        endpoint = f"http://{host}:{service.port}" if host else ""
        assert client(chosen(tmp_path, service.port), os_endpoint=endpoint).snapshots({}) == []
    assert service.secrets() == [token]


def test_a_service_that_listens_on_every_address_or_an_unknown_port_is_found(tmp_path: Path) -> None:
    token = ensure(tmp_path)
    with listening(host="0.0.0.0") as service:  # noqa: S104
        client(chosen(tmp_path, service.port, bind_host="0.0.0.0")).snapshots({})  # noqa: S104
        client(chosen(tmp_path, 0), os_endpoint=service.url).snapshots({})
    assert service.secrets() == [token] * 2


def test_another_port_or_address_does_not(tmp_path: Path) -> None:
    ensure(tmp_path)
    with listening() as other, listening() as service:
        found = chosen(tmp_path, service.port)
        client(found, os_endpoint=other.url).snapshots({})
        client(found, os_endpoint=f"http://127.0.0.1:{other.port}/{service.port}").snapshots({})
        client(found, os_endpoint=f"http://someone@127.0.0.1:{service.port}").snapshots({})
        assert login(service.url, lambda: found).token == ensure(tmp_path)
        for elsewhere in (
            f"https://127.0.0.1:{service.port}",
            f"http://192.0.2.1:{service.port}",
            f"127.0.0.1:{service.port}",
            "http://a.invalid:1",
            "http://127.0.0.1:many",
            "http://[::1:1",
            f"http://{'a' * 70}:1",
            "",
        ):
            assert login(elsewhere, lambda: found).token == ""
    assert (len(other.heard), other.secrets()) == (2, [])
    assert not any(ensure(tmp_path) in secret for secret in service.secrets())


def test_neither_a_proxy_of_the_environment_nor_a_netrc_gets_into_between(place: Place) -> None:
    (place.folder / ".netrc").write_text("machine 127.0.0.1 login l password p\n")
    (place.folder / ".netrc").chmod(0o600)
    state = place.folder / "state"
    token = ensure(state)
    with listening() as proxy, listening() as service:
        place.configure(bind_port=str(service.port))
        environment = {
            "HOME": str(place.folder),
            "http_proxy": proxy.url,
            "ALL_PROXY": proxy.url,
        }
        for said in ({}, {"OS_USERNAME": "u", "OS_PASSWORD": "p"}):
            done = place.run("snapshot", "list", **environment, **said)
            assert done.code == 0, done.err
    assert (proxy.heard, service.secrets()) == ([], [token, "Basic dTpw"])


def test_a_redirection_is_told_and_not_followed(tmp_path: Path) -> None:
    ensure(tmp_path)
    with listening() as elsewhere, listening(status=307, Location=elsewhere.url) as service:
        made = client(chosen(tmp_path, service.port))
        with pytest.raises(CommandFailed, match=f"sends to {elsewhere.url}, which is not followed"):
            made.snapshots({})
    assert elsewhere.heard == []


def test_what_an_answer_links_to_is_asked_for_where_the_service_is(tmp_path: Path) -> None:
    ensure(tmp_path)
    with listening() as elsewhere:
        first = {
            "instance_snapshots": [],
            "instance_snapshots_links": [{"rel": "next", "href": f"{elsewhere.url}/?marker=1"}],
        }
        with listening(first, {"instance_snapshots": []}, {"details": {"progress": 1}}) as service:
            made = client(chosen(tmp_path, service.port))
            made.snapshots({})
            assert made.progress(f"{elsewhere.url}/?action=snapshot&task_id=1&id=2") == {"progress": 1}
    assert elsewhere.heard == []
    assert service.asked == [
        SNAPSHOTS,
        f"{SNAPSHOTS}?marker=1",
        f"{SNAPSHOTS}/get_progress?action=snapshot&task_id=1&id=2",
    ]


def test_why_no_token_was_sent_is_told_with_the_refusal(tmp_path: Path) -> None:
    refusal = {"unauthorized": {"code": 401, "message": "No."}}
    with listening(refusal, status=401) as service:
        cases = (
            (chosen(tmp_path, service.port), "is not there; does the service run with other settings?"),
            (chosen(tmp_path, service.port, auth_strategy="http_basic"), "asks for http_basic; say who you are"),
            (chosen(tmp_path, 1), f"by its settings {service.url} is not the service of this machine"),
        )
        for found, reason in cases:
            with pytest.raises(CommandFailed) as caught:
                client(found, os_endpoint=service.url).snapshots({})
            assert str(caught.value).startswith("No. (no token was sent: "), caught.value
            assert reason in str(caught.value)
        path_of(tmp_path).parent.mkdir(mode=0o700)
        path_of(tmp_path).write_text("x" * 43)
        path_of(tmp_path).chmod(0o644)
        with pytest.raises(CommandFailed, match="could be read by other users"):
            client(chosen(tmp_path, service.port)).snapshots({})
    assert service.secrets() == []


def test_the_callers_name_is_told_where_nobody_is_asked(tmp_path: Path) -> None:
    with listening() as service:
        client(chosen(tmp_path, service.port, auth_strategy="noauth"), os_username="jane").snapshots({})
    assert service.secrets() == ["jane:default"]


def test_a_token_that_is_said_goes_where_it_is_said(tmp_path: Path) -> None:
    with listening() as service:
        client(chosen(tmp_path, 1), os_endpoint=service.url, os_token="said").snapshots({})
    assert service.secrets() == ["said"]


@as_root
def test_a_neighbour_who_listens_in_the_services_place_gets_nothing(tmp_path: Path) -> None:
    ensure(tmp_path)
    script = (
        f"import os, socket, sys; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "place = socket.create_server(('127.0.0.1', 0)); print(place.getsockname()[1], flush=True)\n"
        "peer = place.accept()[0]; said = peer.recv(65536)\n"
        "peer.sendall(b'HTTP/1.1 401 No\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n')\n"
        "print(said.decode(), flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as neighbour:
        assert neighbour.stdout is not None
        port = int(neighbour.stdout.readline())
        with pytest.raises(CommandFailed, match="another user than the token's owner listens"):
            client(chosen(tmp_path, port)).snapshots({})
        said = neighbour.stdout.read()
    assert "GET /volume/v3/default/instance-snapshots" in said
    assert ensure(tmp_path) not in said
    assert "X-Auth-Token" not in said


@as_root
def test_the_services_user_is_named_to_whoever_may_not_read_the_token() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o755)
        ensure(Path(place))
        script = (
            "import encodings.idna, os; from stillframe import settings\n"
            "from stillframe.cli.local_service import login\n"
            f"found = settings.load((), [(None, 'state_dir', {place!r})])\n"
            f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
            "print(login('http://127.0.0.1:8790', lambda: found))\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "belongs to root; with sudo -u root it is found" in done.stdout


def test_the_doctor_looks_at_the_way_in_and_makes_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (finding,) = health.settings(chosen(state, 8790))
    assert (finding.level, state.exists()) == (Level.OK, False)
    ensure(state)
    (finding,) = health.settings(chosen(state, 8790))
    assert finding.level is Level.OK
    path_of(state).chmod(0o644)
    (finding,) = health.settings(chosen(state, 8790))
    assert (finding.level, f"rm -r {path_of(state)}" in finding.detail) == (Level.FAIL, True)
    (finding,) = health.settings(chosen(state, 8790, auth_strategy="noauth"))
    assert (finding.level, "everything" in finding.detail) == (Level.WARN, True)
    (finding,) = health.settings(chosen(state, 8790, auth_strategy="noauth", allowed_hosts=["a:1"]))
    assert (finding.level, "allowed_hosts" in finding.detail) == (Level.FAIL, True)


def test_the_real_service_and_the_real_command_find_each_other(place: Place) -> None:
    with listening() as elsewhere:
        place.configure(public_endpoint=elsewhere.url)
        place.instance("i", root=b"r")
        with started(place, "serve") as process:
            assert process.said.endswith(f"(authentication: token, in {path_of(place.folder / 'state')})")
            done = place.run(
                "--debug", "snapshot", "create", "s", "--instance", "i", "--wait", http_proxy=elsewhere.url
            )
            assert (done.code, place.token in done.out + done.err) == (0, False)
            address = place.variables["STILLFRAME_ENDPOINT"]
            loader: Any = loading.get_plugin_loader("admin_token")
            plugin = loader.load_from_options(endpoint=address, token=place.token)
            reply = session.Session(auth=plugin).get(f"{address}{SNAPSHOTS}")
            assert [one["name"] for one in reply.json()["instance_snapshots"]] == ["s"]
            assert requests.get(f"{address}/volume/v3/default/volumes", timeout=30).status_code == 401
            # As the README shows it; the token is in no argument of a process.
            ask = f'ask() {{ curl -s -H @- "$@" <<<"X-Auth-Token: $(cat {path_of(place.folder / "state")})"; }}'
            shown = subprocess.run(["bash", "-c", f"{ask}; ask {address}{SNAPSHOTS}"], capture_output=True, check=True)
            assert json.loads(shown.stdout) == reply.json()
            wrong = place.run("snapshot", "list", OS_TOKEN="x" * 43)
            assert (wrong.code, wrong.err) == (5, "The token is not that of this service.\n")
        assert place.token not in process.log.read_text()
    assert elsewhere.heard == []
