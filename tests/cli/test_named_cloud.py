"""A cloud that the environment names, and what is asked then: never the service of this machine instead."""

from __future__ import annotations

import json
import ssl
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.cli.program import started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.program import Place

ASKED = ("instance", "list", "-f", "value", "-c", "name")


@contextmanager
def listening(context: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[str]]]:
    """Somebody who hears what is asked, and gives no answer that could be used."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.path)
            self.send_error(404)

        do_POST = do_GET  # noqa: N815  # of the library

        def log_message(self, *_args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http{'s' if context else ''}://127.0.0.1:{server.server_port}", heard
        server.shutdown()


@pytest.mark.parametrize(
    "named",
    [
        {"OS_CLIENT_CONFIG_FILE": "clouds.yaml"},
        {"OS_PROJECT_NAME": "blue", "OS_USERNAME": "mia", "OS_PASSWORD": "secret"},
        {"OS_APPLICATION_CREDENTIAL_ID": "a", "OS_APPLICATION_CREDENTIAL_SECRET": "secret"},
        {"OS_TENANT_NAME": "blue", "OS_AUTH_TYPE": "none"},
        {"OS_REGION_NAME": "one"},
    ],
    ids="+".join,
)
def test_the_service_of_this_machine_is_not_asked_in_its_place(place: Place, named: dict[str, str]) -> None:
    with listening() as (url, heard):
        place.configure(bind_port=url.rpartition(":")[2])
        done = place.run(*ASKED, STILLFRAME_ENDPOINT="", **named)
    assert (done.code, done.out, heard) == (2, "", [])
    assert next(iter(named)) in done.err
    assert "--os-endpoint" in done.err
    assert "secret" not in done.err


def test_a_cloud_that_nobody_knows_is_refused_and_what_the_refusal_says_goes_through(place: Place) -> None:
    place.instance("i", root=b"r")
    with started(place, "serve"):
        at = place.variables["STILLFRAME_ENDPOINT"]
        refused = place.run(*ASKED, OS_CLOUD="demo\x1b[31m")
        assert (refused.code, refused.out, "\x1b" in refused.err) == (2, "", False)
        assert "OS_CLIENT_CONFIG_FILE" in refused.err
        assert "unset OS_CLOUD" in refused.err
        assert place.run(*ASKED, OS_CLOUD="").out == "i\n"
        entered = ("--os-endpoint", at, "--os-auth-type", "admin_token", "--os-token", place.token)
        assert place.run(*entered, *ASKED, OS_CLOUD="demo").out == "i\n"
        auth = {"endpoint": at, "token": place.token}
        variables = clouds(place, {"here": {"auth_type": "admin_token", "auth": auth}, "bad": {"auth": 3}})
        assert place.run(*ASKED, **variables, OS_CLOUD="here", STILLFRAME_ENDPOINT="").out == "i\n"
        assert place.run("--os-cloud", "here", *ASKED, **variables, STILLFRAME_ENDPOINT="").out == "i\n"
        assert place.run(*ASKED, **variables, OS_CLOUD="bad").code == 2


@pytest.mark.parametrize(
    "text",
    [
        "clouds:\n  demo:\n    password: secret\n   x: [secret",
        "clouds: [demo, secret]",
        "clouds: {demo: secret}",
        "clouds: {demo: {auth: [secret]}}",
        "clouds: {demo: {profile: nosuch-secretless, auth: {auth_url: 'http://127.0.0.1:1'}, auth_type: nosuch}}",
        "- demo",
    ],
)
def test_a_cloud_that_is_written_wrongly_is_refused_in_plain_words(place: Place, text: str) -> None:
    (place.folder / "clouds.yaml").write_text(text)
    with listening() as (url, heard):
        place.configure(bind_port=url.rpartition(":")[2])
        found = {"OS_CLIENT_CONFIG_FILE": str(place.folder / "clouds.yaml"), "OS_CLOUD": "demo", "OS_USERNAME": ""}
        done = place.run(*ASKED, STILLFRAME_ENDPOINT="", **found)
    assert (done.code, done.out, heard) == (2, "", []), done.err
    assert "cloud" in done.err
    assert "unexpected" not in done.err
    assert " secret" not in done.err


def test_a_cloud_beside_the_keystone_of_another_is_refused(place: Place) -> None:
    auth = {"auth_url": "http://127.0.0.1:1/v3", "username": "mia", "password": "secret", "project_name": "blue"}
    variables = clouds(place, {"demo": {"auth": auth}})
    with listening() as (url, heard):
        done = place.run(*ASKED, **variables, OS_CLOUD="demo", OS_AUTH_URL=url)
    assert (done.code, heard) == (2, [])
    assert "unset OS_CLOUD" in done.err


def test_whose_certificates_are_trusted_is_read_with_the_cloud(place: Place) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(place.folder / "authority.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with listening(context) as (url, heard):
        auth = {"auth_url": f"{url}/v3", "username": "mia", "password": "secret", "project_name": "blue"}
        described = {
            "strange": {"auth": auth},
            "trusted": {"auth": auth, "cacert": str(place.folder / "authority.pem")},
            "careless": {"auth": auth, "verify": False},
        }
        variables = {**clouds(place, described), "STILLFRAME_ENDPOINT": ""}
        refused = place.run(*ASKED, **variables, OS_CLOUD="strange")
        assert ("--os-cacert" in refused.err, heard) == (True, []), refused.err
        place.run(*ASKED, **variables, OS_CLOUD="trusted")
        assert heard
        heard.clear()
        place.run(*ASKED, **variables, OS_CLOUD="careless")
        assert heard


def clouds(place: Place, described: dict[str, object]) -> dict[str, str]:
    """Write a file of clouds; the variables by which it is found."""
    file = place.folder / "named" / "clouds.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"clouds": described}))  # JSON is YAML
    return {"OS_CLIENT_CONFIG_FILE": str(file), "OS_USERNAME": ""}
