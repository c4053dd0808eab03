"""Where the service is not at the address that was given: it is said at once, and in words."""

from __future__ import annotations

import argparse
import http.server
import json
import shlex
import signal
import socket
import ssl
import subprocess
import time
import uuid
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from stillframe import settings
from stillframe.cli.connection import open_client
from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.cli.options import add_connection_options
from tests.cli.program import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stillframe.cli.client import Client
    from tests.cli.program import Place


def client(endpoint: str, **options: Any) -> Client:
    parser = argparse.ArgumentParser()
    add_connection_options(parser)
    given = {**vars(parser.parse_args([])), "os_endpoint": endpoint, "os_auth_type": "none", **options}
    return open_client(argparse.Namespace(**given), lambda: settings.load(()))


def failure(endpoint: str, ask: Callable[[Client], object], **options: Any) -> CommandFailed:
    with pytest.raises(CommandFailed) as caught:
        ask(client(endpoint, **options))
    return caught.value


def listing(made: Client) -> object:
    return made.snapshots({})


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Somebody who gives every connection the same answer, and hangs up; with an empty one only listens."""
    with socket.create_server(("127.0.0.1", 0)) as place:

        def answer_all() -> None:
            while True:
                try:
                    peer, _address = place.accept()
                except OSError:
                    return
                with peer:
                    peer.recv(65536)
                    peer.sendall(answer)

        if answer:
            Thread(target=answer_all, daemon=True).start()
        yield f"127.0.0.1:{place.getsockname()[1]}"
        place.shutdown(socket.SHUT_RDWR)


def page(text: str, kind: str = "text/html", status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    return (head + text).encode()


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1:8790", "localhost:8790", "ftp://127.0.0.1", "http://", "http://a:99999", "http://[::1", "/x", "x"],
)
@pytest.mark.parametrize("option", ["os_endpoint", "os_auth_url"])
def test_what_is_no_address_is_refused(option: str, text: str) -> None:
    kind = "none" if option == "os_endpoint" else "password"
    refused = failure("http://127.0.0.1:9", listing, os_auth_type=kind, **{option: text})
    assert refused.code is ExitCode.USAGE
    assert f"--{option.replace('_', '-')}: '{text}' is no address" in str(refused)


def test_the_address_that_was_meant_is_told() -> None:
    assert str(failure("127.0.0.1:8790", listing)).endswith("such as http://127.0.0.1:8790")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (page("<html>welcome</html>"), "GET was answered with text/html"),
        (page("<html>none</html>", status="404 Not Found"), "it answered with status 404"),
        (page('{"detail": "Not Found"}', "application/json", "404 Not Found"), "it answered with status 404"),
        (page("[]", "application/json"), "GET was answered with application/json"),
        (page('{"servers": []}', "application/json"), "its answer has no 'instance_snapshots'"),
    ],
)
def test_somebody_else_is_not_taken_for_the_service(answer: bytes, why: str) -> None:
    with answering(answer) as address:
        refused = failure(f"http://{address}", listing)
    assert refused.code is ExitCode.UNAVAILABLE
    assert f"what answers at http://{address} is not this service: {why}" in str(refused)


def test_nothing_was_sent_where_nobody_listens() -> None:
    refused = failure("http://127.0.0.1:9", lambda made: made.create("i", "s", "", ()))
    assert "nothing listens there; is the service running?" in str(refused)
    assert "not known" not in str(refused)


def test_a_request_whose_answer_did_not_come_may_have_been_accepted() -> None:
    with answering(b"HTTP/1.1") as address:
        refused = failure(f"http://{address}", lambda made: made.create("i", "s", "", ()))
    assert "whether it has accepted the request is not known" in str(refused)


def test_who_speaks_no_tls_is_told_from_who_does(served: Place) -> None:
    began = time.monotonic()
    refused = failure(served.variables["STILLFRAME_ENDPOINT"].replace("http:", "https:"), listing)
    assert "if it serves plain HTTP, its address begins with http://" in str(refused)
    with answering(page("x", status="400 Bad Request")) as address:
        assert "does not speak TLS as it should" in str(failure(f"https://{address}", listing))
    assert time.monotonic() - began < 60


def test_a_handshake_that_is_never_answered_is_given_up() -> None:
    with answering(b"") as address:
        refused = failure(f"https://{address}", listing)
    assert "does not answer in time; if it serves plain HTTP" in str(refused)


def test_a_service_hangs_up_on_a_tls_handshake(served: Place) -> None:
    host, port = served.variables["STILLFRAME_ENDPOINT"].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection, pytest.raises(OSError):  # noqa: PT011
        ssl.create_default_context().wrap_socket(connection, server_hostname="localhost")


def test_an_instance_that_only_the_service_knows_is_not_called_unknown(served: Place, tmp_path: Path) -> None:
    name = f"i{uuid.uuid4().hex[:8]}"
    served.instance(name, root=b"r")
    (tmp_path / "other.conf").write_text(f"[DEFAULT]\nstate_dir = {tmp_path / 'elsewhere'}\n")
    other = {"STILLFRAME_CONFIG": str(tmp_path / "other.conf"), "OS_TOKEN": served.token}
    missed = served.run("instance", "remove", name, **other)
    assert (missed.code, f"but {served.variables['STILLFRAME_ENDPOINT']} knows it" in missed.err) == (3, True), missed
    disk = served.disk(f"{name}-more", b"")
    assert served.run("instance", "add", name, "--disk", f"{disk},format=raw", **other).code == 0
    unsure = served.run("instance", "remove", name, **other)
    assert (unsure.code, f"does not know '{name}'" in unsure.err) == (4, True), unsure
    assert served.run("instance", "remove", name).code == 0


def test_ctrl_c_says_that_the_operation_goes_on_and_how_to_watch_it(place: Place) -> None:
    with answering_slowly() as endpoint:
        waiting = subprocess.Popen(
            # Whoever runs the tests in the background has it ignored, and all that it starts inherit that.
            ["env", "--default-signal=INT", *PROGRAM, "snapshot", "create", "s", "--instance", "i", "--wait"],
            env={**place.environment(), "STILLFRAME_ENDPOINT": endpoint, "OS_TOKEN": "t"},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert waiting.stderr is not None
        assert "taking s:   0 %" in waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        said = waiting.stderr.read()
    assert waiting.wait(60) == ExitCode.INTERRUPTED
    assert "the operation was accepted and goes on" in said
    advice = said.partition("watch it with: ")[2]
    assert shlex.split(advice) == ["stillframe", "snapshot", "progress", "--wait", f"{endpoint}/?action=snapshot&id=s"]


@contextmanager
def answering_slowly() -> Iterator[str]:
    """A service whose operation never ends."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.reply({"instance_snapshot": {"id": "s", "task_uri": f"{url}/?action=snapshot&id=s"}})

        def do_GET(self) -> None:
            details = {"progress": 0, "flow_details": {}, "completed_tasks": {}, "pending_tasks": {}}
            snapshot = {"id": "s", "status": "creating", "task_uri": f"{url}/?action=snapshot&id=s"}
            self.reply({"details": details, "instance_snapshot": snapshot, "server": {"id": "i"}})

        def reply(self, document: object) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield url
    finally:
        server.shutdown()
        server.server_close()
