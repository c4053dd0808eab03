"""A cloud that the environment names, and what is asked then: never the service of this machine instead."""

from __future__ import annotations

from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from tests.cli.program import started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.program import Place

CLOUDS = """clouds:
  demo:
    auth: {auth_url: 'http://127.0.0.1:1/v3', username: mia, password: secret, project_name: blue}
"""
ASKED = ("instance", "list", "-f", "value", "-c", "name")


@contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """Somebody who hears what is asked, and gives no answer that could be used."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.path)
            self.send_error(404)

        do_POST = do_GET  # noqa: N815  # of the library

        def log_message(self, *_args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", heard
        server.shutdown()


@pytest.mark.parametrize(
    "named",
    [
        {"OS_CLOUD": "demo"},
        {"OS_CLOUD": "demo", "OS_TOKEN": "t"},
        {"OS_PROJECT_NAME": "blue", "OS_USERNAME": "mia", "OS_PASSWORD": "secret"},
        {"OS_APPLICATION_CREDENTIAL_ID": "a", "OS_APPLICATION_CREDENTIAL_SECRET": "secret"},
        {"OS_TENANT_NAME": "blue", "OS_AUTH_TYPE": "none"},
        {"OS_REGION_NAME": "one"},
    ],
    ids="+".join,
)
def test_the_service_of_this_machine_is_not_asked_in_its_place(place: Place, named: dict[str, str]) -> None:
    (place.folder / "clouds.yaml").write_text(CLOUDS)
    with listening() as (url, heard):
        place.configure(bind_port=url.rpartition(":")[2])
        done = place.run(*ASKED, STILLFRAME_ENDPOINT="", **named)
    assert (done.code, done.out, heard) == (2, "", [])
    assert next(iter(named)) in done.err
    assert "--os-endpoint" in done.err
    assert "secret" not in done.err


def test_what_the_refusal_says_is_done_and_goes_through(place: Place) -> None:
    place.instance("i", root=b"r")
    with started(place, "serve"):
        at = place.variables["STILLFRAME_ENDPOINT"]
        refused = place.run(*ASKED, OS_CLOUD="demo")
        assert (refused.code, "unset OS_CLOUD" in refused.err) == (2, True)
        assert place.run(*ASKED, OS_CLOUD="").out == "i\n"
        entered = ("--os-endpoint", at, "--os-auth-type", "admin_token", "--os-token", place.token)
        assert place.run(*entered, *ASKED, OS_CLOUD="demo").out == "i\n"


def test_a_keystone_beside_the_name_of_another_cloud_is_refused(place: Place) -> None:
    with listening() as (url, heard):
        done = place.run(*ASKED, OS_CLOUD="demo\x1b[31m", OS_AUTH_URL=url, OS_USERNAME="mia", OS_PASSWORD="secret")
    assert (done.code, heard, "\x1b" in done.err) == (2, [], False)
    assert "OS_CLOUD" in done.err
