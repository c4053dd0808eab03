"""The attacker is a service of the cloud, or whoever stands in its place."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from keystoneauth1 import token_endpoint
from keystoneauth1.identity.v3 import Password
from keystoneauth1.plugin import BaseAuthPlugin
from keystoneauth1.session import Session

from stillframe.domain.errors import BackendError, StillframeError, Unavailable
from stillframe.drivers.openstack import documents
from stillframe.drivers.openstack.cloud import Api, Cloud, Endpoints
from stillframe.foreign.keystoneauth import harden
from tests.attacks.bounds import BOUND, TIMEOUT, failing
from tests.attacks.hostile import WAYS, hostile, plain, redirect

TOKEN, PASSWORD = "the-token", "the-password"


def cloud(load_auth: Callable[[str | None], BaseAuthPlugin], timeout: float = BOUND) -> Cloud:
    session = Session(timeout=timeout)
    harden(session)
    return Cloud(session, load_auth, Endpoints("public", None))


def nova(url: str, timeout: float = BOUND) -> Api:
    """A service that was logged in to before."""
    return cloud(lambda _project: token_endpoint.Token(url, TOKEN), timeout).service("compute")


@pytest.mark.parametrize("way", WAYS)
def test_no_answer_holds_a_thread_or_fills_the_memory_or_is_believed(way: str) -> None:
    with hostile(WAYS[way]) as server:
        api = nova(server.url, TIMEOUT)
        with failing(Unavailable, BackendError, secret=TOKEN):
            api.get("/servers/1", documents.SERVER)


@pytest.mark.parametrize("way", WAYS)
def test_no_answer_at_the_login_is_believed_or_shows_the_password(way: str) -> None:
    with hostile(WAYS[way]) as server:

        def login(_project: str | None) -> Password:
            return Password(f"{server.url}/v3", username="u", password=PASSWORD, user_domain_id="d", project_id="p")

        with failing(Unavailable, BackendError, secret=PASSWORD):
            cloud(login, TIMEOUT).roles()


def test_a_redirection_to_another_server_gets_no_token() -> None:
    server_document = json.dumps({"server": {}}).encode()
    with hostile(plain(server_document)) as elsewhere, hostile(redirect(f"{elsewhere.url}/servers/1")) as server:
        with pytest.raises(Unavailable):
            nova(server.url).get("/servers/1", documents.SERVER)
        assert elsewhere.heard == []
        assert any(TOKEN.encode() in heard for heard in server.heard)


def test_a_page_of_a_proxys_is_no_lock_and_no_revert() -> None:
    with hostile(WAYS["is a page of a proxy's"]) as server, pytest.raises(Unavailable):
        nova(server.url).act("/servers/1/action", {"lock": {}})


def test_pages_without_end_come_to_an_end() -> None:
    document = {"volumes": [{"id": "1"}], "volumes_links": [{"rel": "next", "href": "x"}]}
    with hostile(plain(json.dumps(document).encode())) as server, pytest.raises(Unavailable, match="again and again"):
        list(nova(server.url).pages("/volumes", documents.VOLUME_IDS))


def test_a_token_that_comes_back_in_a_refusal_is_not_shown() -> None:
    said = json.dumps({"badRequest": {"message": f"bad {TOKEN}\x1b[31m\nforged line", "code": 400}}).encode()
    with hostile(plain(said, b"HTTP/1.1 400 Bad\r\nConnection: close\r\nContent-Type: application/json\r\n")) as server:
        with pytest.raises(StillframeError) as told:
            nova(server.url).act("/servers/1/action", {"lock": {}})
        assert TOKEN not in told.value.message
        assert told.value.message.isprintable()


def test_cookies_are_not_kept() -> None:
    head = b"HTTP/1.1 202 Accepted\r\nConnection: close\r\nSet-Cookie: a=b; Path=/\r\n"
    with hostile(plain(b"", head)) as server:
        api = nova(server.url)
        for _ in range(3):
            api.act("/servers/1/action", {"lock": {}})
        assert not any(b"cookie" in heard.lower() for heard in server.heard)
