"""A user with credentials of the own project, who knows the ids of another project's things."""

from __future__ import annotations

import itertools
import json
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

import bcrypt
import pytest
from keystonemiddleware.auth_token._request import _AuthTokenRequest
from oslo_context import context

from stillframe.api.auth.claims import CLAIMS, without_claims
from tests.api.identity import PASSWORD, Identity, keystone
from tests.api.running import Running, running
from tests.attacks.served import Things, probes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.attacks.served import Probe

MINE, THEIRS, MY_NAME, THEIR_NAME = "blue", "green", "mia", "gus"
PRIVATE: Final = "private-name"
#: What oslo.context reads that is no identity: the credentials themselves, which somebody checks.
CREDENTIALS: Final = {"HTTP_X_AUTH_TOKEN", "HTTP_X_STORAGE_TOKEN", "HTTP_X_SERVICE_TOKEN"}
POLICY: Final = '"snapshot:create": "role:king"\n'


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def basic(folder: Path, grants: list[str], *config_files: str) -> Iterator[Running]:
    file = folder / "htpasswd"
    file.write_text("".join(f"{user}:{hashed(user)}\n" for user in (MY_NAME, THEIR_NAME)))
    with running(
        folder,
        (None, "auth_strategy", "http_basic"),
        ("http_basic", "user_file", str(file)),
        ("http_basic", "grants", grants),
        config_files=config_files,
    ) as api:
        yield api


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`mia` is a member of blue, `gus` of green."""
    yield from basic(tmp_path_factory.mktemp("service"), [f"{MY_NAME}:{MINE}:member", f"{THEIR_NAME}:{THEIRS}:member"])


def things(api: Running, project_id: str, user: str) -> Things:
    instance = api.instance(project_id)
    who = {"auth": (user, user)}
    created = api.act(instance, {"vm-snapshot": {"name": PRIVATE}}, **who).json()["instance_snapshot"]
    api.wait(created["task_uri"], **who)
    task_id = parse_qs(urlsplit(created["task_uri"]).query)["task_id"][0]
    return Things(project_id, instance.id, created["id"], instance.attachments[0].volume_id, task_id)


def send(api: Running, probe: Probe, headers: dict[str, str] | None = None) -> tuple[int, str]:
    reply = api.call(probe.method, probe.path, json=probe.body, headers=headers, auth=(MY_NAME, MY_NAME))
    return reply.status_code, reply.text


def test_the_ids_of_another_project_lead_nowhere(service: Running) -> None:
    theirs = things(service, THEIRS, THEIR_NAME)
    asked = replace(theirs, project_id=MINE)
    before = service.everything()
    for probe in probes(asked):
        status, text = send(service, probe)
        if status == 200:
            # A list: it is answered, and has none of it.
            assert (probe.method, probe.lists, "instance-snapshots/" in probe.path) == ("GET", True, False), probe
        else:
            assert status in (400, 403, 404), (probe, text)
        assert PRIVATE not in text, probe
        assert THEIRS not in text, probe
        told = {one for one in theirs.ids if one in text}
        # A refusal may repeat what was asked for, and nothing else.
        assert told <= {one for one in theirs.ids if one in f"{probe.path} {json.dumps(probe.body)}"}, probe
    assert service.everything() == before


def test_an_id_of_another_project_is_answered_like_one_that_nobody_has(service: Running) -> None:
    theirs = replace(things(service, THEIRS, THEIR_NAME), project_id=MINE)
    nobodys = Things(MINE, *(str(uuid.uuid4()) for _ in range(4)))
    fields = ("server_id", "snapshot_id", "volume_id", "task_id", "copy_id")
    names = {getattr(theirs, field): getattr(nobodys, field) for field in fields}
    for foreign, unknown in zip(probes(theirs), probes(nobodys), strict=True):
        status, text = send(service, foreign)
        for one, other in names.items():
            text = text.replace(one, other)
        assert (status, text) == send(service, unknown), foreign


def test_the_path_of_another_project_leads_nowhere(service: Running) -> None:
    theirs = things(service, THEIRS, THEIR_NAME)
    before = service.everything()
    for probe in probes(theirs):
        status, text = send(service, probe)
        if THEIRS in urlsplit(probe.path).path:
            assert (status, PRIVATE in text, [one for one in theirs.ids if one in text]) == (400, False, []), probe
    assert service.everything() == before


def test_every_header_that_a_library_takes_an_identity_from_is_a_claim() -> None:
    # Neither of the two tells them otherwise.
    read = {name for names in vars(context)["_ENVIRON_HEADERS"].values() for name in names if name.startswith("HTTP_")}
    own = vars(_AuthTokenRequest)
    template = itertools.product((*own["_HEADER_TEMPLATE"], own["_ROLES_TEMPLATE"]), ("", "-Service"))
    written = {form % prefix for form, prefix in template} | set(own["_DEPRECATED_HEADER_MAP"])
    written |= {own[name] for name in own if name.endswith("_HEADER")}
    known = read | {f"HTTP_{name.upper().replace('-', '_')}" for name in written}
    assert known - CREDENTIALS - CLAIMS == set()
    # What oslo.context reads beside that by names of its own.
    for more in ("HTTP_X_ROLES", "HTTP_X_ROLE", "HTTP_X_IS_ADMIN_PROJECT", "HTTP_X_SERVICE_ROLES"):
        assert more in CLAIMS


def test_claims_are_taken_away_however_they_are_spelled() -> None:
    seen: list[dict[str, object]] = []

    def app(environ: dict[str, object], _start: object) -> list[bytes]:
        seen.append(environ)
        return []

    for spelled in ("HTTP_X_ROLES", "HTTP_X-Roles", "http_x_roles", "HTTP_OPENSTACK-SYSTEM-SCOPE", "HTTP_X_PROJECT-ID"):
        without_claims(app)({spelled: "admin", "HTTP_HOST": "localhost"}, None)  # type: ignore[arg-type]
    assert seen == [{"HTTP_HOST": "localhost"}] * 5


@pytest.mark.parametrize("spelling", ["-", "_"])
def test_identity_headers_raise_nobody(tmp_path_factory: pytest.TempPathFactory, spelling: str) -> None:
    folder = tmp_path_factory.mktemp("claims")
    (folder / "policy.yaml").write_text(POLICY)
    config = folder / "stillframe.conf"
    config.write_text(f"[oslo_policy]\npolicy_file = {folder}/policy.yaml\n")
    grants = [f"{MY_NAME}:{MINE}:member", f"{THEIR_NAME}:{THEIRS}:member"]
    for api in basic(folder, grants, str(config)):
        mine, theirs = api.instance(MINE), api.instance(THEIRS)
        asked = Things(MINE, theirs.id, str(uuid.uuid4()), theirs.attachments[0].volume_id, str(uuid.uuid4()))
        own = Things(MINE, mine.id, str(uuid.uuid4()), mine.attachments[0].volume_id, str(uuid.uuid4()))
        before = api.everything()
        for value in ("all", "admin,king,service", THEIRS, "Confirmed", "True"):
            claims = {name.removeprefix("HTTP_").replace("_", spelling): value for name in CLAIMS}
            assert api.act(mine, {"vm-snapshot": {"name": "s"}}, headers=claims, auth=(MY_NAME,) * 2).status_code == 403
            for probe in probes(asked):
                assert send(api, probe, claims) == send(api, probe), (probe, value)
        for probe in probes(own):
            if probe.method == "GET":
                assert send(api, probe, {**claims, "X-Project-Id": THEIRS}) == send(api, probe), probe
        assert api.everything() == before


CLOUD: Final = """
[keystone_authtoken]
auth_type = password
auth_url = {url}
www_authenticate_uri = {url}
username = admin
password = {password}
project_name = admin
user_domain_id = default
project_domain_id = default
[oslo_policy]
policy_file = {folder}/policy.yaml
"""


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Identity]:
    with keystone(tmp_path_factory.mktemp("keystone")) as found:
        found.add(MY_NAME, MINE, "member")
        found.add(THEIR_NAME, THEIRS, "member")
        yield found


@pytest.fixture(scope="module")
def in_a_cloud(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("cloud")
    (folder / "policy.yaml").write_text(POLICY)
    file = folder / "stillframe.conf"
    file.write_text(CLOUD.format(url=identity.url, password=PASSWORD, folder=folder))
    with running(folder, (None, "auth_strategy", "keystone"), config_files=[str(file)]) as api:
        yield api


def test_identity_headers_raise_no_user_of_keystone(in_a_cloud: Running, identity: Identity) -> None:
    api, mine = in_a_cloud, identity.projects[MINE]
    token = {"X-Auth-Token": identity.token(MY_NAME, MINE)}
    own = api.instance(mine)
    before = api.everything()
    for value in ("all", "admin,king,service", identity.projects[THEIRS], "Confirmed"):
        claims = {name.removeprefix("HTTP_").replace("_", "-"): value for name in CLAIMS}
        assert api.act(own, {"vm-snapshot": {"name": "s"}}, headers={**claims, **token}).status_code == 403
        assert api.call("GET", f"/v3/{mine}/instance-snapshots", headers={**claims, **token}).status_code == 200
        for path in (f"/v3/{identity.projects[THEIRS]}/instance-snapshots", f"/v3/{mine}/volumes?all_tenants=true"):
            assert api.call("GET", path, headers={**claims, **token}).status_code in (400, 403)
        assert api.call("GET", f"/v3/{mine}/instance-snapshots", headers=claims).status_code == 401
    assert api.everything() == before


def test_the_scope_of_a_service_token_is_not_the_users(in_a_cloud: Running, identity: Identity) -> None:
    """Keystonemiddleware writes the scope of the token in X-Service-Token over that of the user's own."""
    own = in_a_cloud.instance(identity.projects[MINE])
    before = in_a_cloud.everything()
    headers = {"X-Auth-Token": identity.token(MY_NAME, MINE), "X-Service-Token": identity.system_token("admin")}
    reply = in_a_cloud.act(own, {"vm-snapshot": {"name": "s"}}, headers=headers)
    assert reply.status_code in (401, 403)
    assert in_a_cloud.everything() == before
