"""The attacker stands in the place of Keystone, when the API asks it about a caller's token."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import pytest
from falcon.testing import TestClient

from stillframe.api.auth.keystone import keystone
from stillframe.settings import load
from tests.attacks.hostile import WAYS, hostile

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BOUND: Final = 30.0
CONFIGURATION: Final = """
[DEFAULT]
state_dir = {folder}
[keystone_authtoken]
auth_type = v3password
auth_url = {url}/v3
www_authenticate_uri = {url}/v3
username = u
password = the-password
project_name = p
user_domain_id = default
project_domain_id = default
http_connect_timeout = 1
http_request_max_retries = 0
"""


@pytest.mark.parametrize("way", WAYS)
def test_no_answer_of_keystones_lets_anybody_in_or_holds_a_thread(tmp_path: Path, way: str) -> None:
    let_in: list[object] = []

    def app(_environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        let_in.append(True)
        start_response("200 OK", [])
        return [b""]

    with hostile(WAYS[way]) as server:
        config = tmp_path / "stillframe.conf"
        config.write_text(CONFIGURATION.format(folder=tmp_path, url=server.url))
        guarded = keystone(load([str(config)])).wrap(app)
        began = time.monotonic()
        client = TestClient(lambda environ, start_response: guarded(environ, start_response))  # noqa: PLW0108
        reply = client.simulate_get("/", headers={"X-Auth-Token": "somebodys-token"})
        assert time.monotonic() - began < BOUND
    assert let_in == []
    assert reply.status_code in (401, 503)
    assert "the-password" not in reply.text
