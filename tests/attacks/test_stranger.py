"""Somebody without credentials: another user of the machine, a guest that reaches its loopback addresses, a web page.

For the service a guest's connection through QEMU's user network (10.0.2.2) is like that of any program of the machine.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

import pytest

from stillframe.api.auth.claims import CLAIMS
from stillframe.api.auth.token_file import path_of
from stillframe.api.routes import ROUTES
from tests.api.running import Running, running
from tests.attacks.served import Things, probes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.attacks.served import Probe

PROJECT: Final = "blue"
EVERYTHING: Final = {name.removeprefix("HTTP_").replace("_", "-"): "admin" for name in sorted(CLAIMS)}
SECRET: Final = "x" * 43


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service as it is without settings."""
    with running(tmp_path_factory.mktemp("default"), (None, "auth_strategy", "token")) as api:
        yield api


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service that asks nobody, of which only the address is left as a protection."""
    with running(tmp_path_factory.mktemp("noauth"), (None, "auth_strategy", "noauth")) as api:
        yield api


def token(api: Running) -> dict[str, str]:
    return {"X-Auth-Token": path_of(api.service.settings.state_dir).read_text().strip()}


def things(api: Running, headers: Mapping[str, str]) -> Things:
    """An instance with a snapshot, and what they are known by."""
    instance = api.instance(PROJECT)
    reply = api.act(instance, {"vm-snapshot": {"name": "theirs"}}, headers=headers)
    assert reply.status_code == 200
    created = reply.json()["instance_snapshot"]
    api.wait(created["task_uri"], headers=headers)
    task_id = parse_qs(urlsplit(created["task_uri"]).query)["task_id"][0]
    return Things(PROJECT, instance.id, created["id"], instance.attachments[0].volume_id, task_id)


def send(api: Running, probe: Probe, headers: Mapping[str, str]) -> tuple[int, str]:
    data = None if probe.body is None else json.dumps(probe.body)
    kind = {} if probe.body is None or "Content-Type" in headers else {"Content-Type": "application/json"}
    reply = api.call(probe.method, probe.path, data=data, headers={**kind, **headers})
    shares = [name for name in reply.headers if name.lower().startswith(("access-control-", "timing-allow-"))]
    assert shares == []
    return reply.status_code, reply.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Auth-Token": ""},
        {"X-Auth-Token": "admin:blue"},
        {"X-Auth-Token": SECRET},
        {"X-Auth-Token": "\u00ff" * 43},
        {"X-Service-Token": SECRET, "X-Storage-Token": SECRET},
        {"Authorization": f"Bearer {SECRET}"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {base64.b64encode(b'admin:admin').decode()}"},
        {"Cookie": f"token={SECRET}", "X-Real-Ip": "127.0.0.1", "X-Forwarded-For": "127.0.0.1"},
        EVERYTHING,
    ],
    ids=lambda headers: "+".join(headers)[:40] or "nothing",
)
def test_every_request_without_the_token_gets_nothing(service: Running, headers: dict[str, str]) -> None:
    known = things(service, token(service))
    before = service.everything()
    sent = {name: value.encode("latin-1") for name, value in headers.items()}
    for probe in probes(known):
        status, text = send(service, probe, sent)  # type: ignore[arg-type]  # requests takes bytes as they are
        assert (status, [*json.loads(text or '{"unauthorized": {}}')]) == (401, ["unauthorized"]), probe
        assert not any(one in text for one in known.ids), probe
    assert service.everything() == before


def test_a_part_of_the_token_or_more_than_it_is_not_the_token(service: Running) -> None:
    right = token(service)["X-Auth-Token"]
    path = f"/volume/v3/{PROJECT}/instance-snapshots"
    for wrong in (right[:-1], right + "x", right.swapcase(), f"{right}, {right}", f"Bearer {right}", right[::-1]):
        assert service.call("GET", path, headers={"X-Auth-Token": wrong}).status_code == 401
    assert service.call("GET", f"{path}?token={right}").status_code == 401
    for good in ({"X-Auth-Token": right}, {"Authorization": f"Bearer {right}"}, {"Authorization": f"bearer {right}"}):
        assert service.call("GET", path, headers=good).status_code == 200


def test_what_needs_no_token_tells_nothing_of_anybody(service: Running) -> None:
    known = things(service, token(service))
    public = [form for route in ROUTES if route.public for form in route.forms()]
    for path in (*public, "/metrics", "/openapi.json", "/healthcheck"):
        reply = service.call("GET", path)
        assert reply.status_code in (200, 300)
        found = [one for one in (*known.ids, PROJECT, str(service.service.settings.state_dir)) if one in reply.text]
        assert found == [], path


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8790", "127.0.0.1.evil.example", "10.0.2.2"])
def test_a_page_whose_name_was_made_to_mean_this_machine_gets_nothing(trusting: Running, host: str) -> None:
    known = things(trusting, {})
    before = trusting.everything()
    page = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin", "X-Forwarded-Host": "localhost"}
    for probe in probes(known):
        status, text = send(trusting, probe, page)
        assert status == 421, probe
        assert not any(one in text for one in known.ids), probe
    for path in ("/metrics", "/openapi.json", "/"):
        assert trusting.call("GET", path, headers=page).status_code == 421
    assert trusting.everything() == before


@pytest.mark.parametrize(
    "page",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:8888"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example", "Content-Type": "text/plain"},
        {"Origin": "https://evil.example"},
        {"Origin": "null", "Content-Type": "application/x-www-form-urlencoded"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": ""},
    ],
    ids=lambda page: " ".join(page.values())[:40],
)
def test_a_page_of_another_site_gets_nothing(trusting: Running, page: dict[str, str]) -> None:
    known = things(trusting, {})
    before = trusting.everything()
    for probe in probes(known):
        status, text = send(trusting, probe, page)
        assert (status, [*json.loads(text)]) == (403, ["forbidden"]), probe
        assert not any(one in text for one in known.ids), probe
    assert trusting.everything() == before


def test_a_page_of_another_site_is_not_told_that_it_may_ask(trusting: Running) -> None:
    known = things(trusting, {})
    asked = {"Method": "POST", "Headers": "x-auth-token", "Private-Network": "true"}
    asks = {"Origin": "https://evil.example"} | {f"Access-Control-Request-{name}": asked[name] for name in asked}
    for path in {probe.path for probe in probes(known)} | {"/", "/openapi.json", "/metrics"}:
        reply = trusting.call("OPTIONS", path, headers=asks)
        assert [name for name in reply.headers if name.lower().startswith("access-control-")] == []


def test_a_page_of_the_services_own_and_a_client_that_is_no_browser_are_served(trusting: Running) -> None:
    instance = trusting.instance(PROJECT)
    host = trusting.url.removeprefix("http://")
    for own in ({"Origin": trusting.url}, {"Sec-Fetch-Site": "same-origin", "Origin": trusting.url},
                {"Sec-Fetch-Site": "none"}, {"Origin": f"http://{host.upper()}"}, {}):  # fmt: skip
        assert trusting.act(instance, {"os-start": None}, headers=own).status_code in (202, 409)
        assert trusting.call("GET", f"/v3/{PROJECT}/instance-snapshots", headers=own).status_code == 200


def test_identity_headers_of_a_client_change_nothing_where_nobody_is_asked(trusting: Running) -> None:
    instance = trusting.instance(PROJECT)
    reply = trusting.act(instance, {"vm-snapshot": {"name": "one"}}, headers=EVERYTHING)
    created = reply.json()["instance_snapshot"]
    trusting.wait(created["task_uri"])
    shown = trusting.show(instance, created["id"])
    assert (shown["user_id"], shown["project_id"]) == ("noauth", PROJECT)
    every = trusting.call("GET", f"/v3/{PROJECT}/instance-snapshots?all_tenants=true", headers=EVERYTHING)
    assert every.status_code == 403
