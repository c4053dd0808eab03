"""Who may do what, with a real Keystone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.api.identity import PASSWORD, Identity, keystone
from tests.api.running import Running, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stillframe.domain.instance import Instance

CONFIGURATION = """
[keystone_authtoken]
auth_type = password
auth_url = {url}
www_authenticate_uri = {url}
username = admin
password = {password}
project_name = admin
user_domain_id = default
project_domain_id = default
"""
BODY = {"vm-snapshot": {"name": "one"}}


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Identity]:
    with keystone(tmp_path_factory.mktemp("keystone")) as service:
        for user, project, role in (
            ("rita", "blue", "reader"),
            ("mia", "blue", "member"),
            ("gus", "green", "member"),
            ("ada", "red", "admin"),
        ):
            service.add(user, project, role)
        yield service


@pytest.fixture(scope="module")
def guarded(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("guarded")
    with running(folder, (None, "auth_strategy", "keystone"), config_files=[configured(folder, identity.url)]) as api:
        yield api


def configured(folder: Path, url: str) -> str:
    file = folder / "stillframe.conf"
    file.write_text(CONFIGURATION.format(url=url, password=PASSWORD))
    return str(file)


def as_user(identity: Identity, user: str, project: str) -> dict[str, str]:
    return {"X-Auth-Token": identity.token(user, project)}


def blue(guarded: Running, identity: Identity) -> Instance:
    return guarded.instance(identity.projects["blue"])


@pytest.mark.parametrize("token", [None, "", "nonsense", "gAAAAABnonsense", "mia:blue"])
def test_a_request_without_a_good_token_is_challenged_and_nothing_happens(
    guarded: Running, identity: Identity, token: str | None
) -> None:
    instance = blue(guarded, identity)
    before = guarded.everything()
    reply = guarded.act(instance, BODY, headers={} if token is None else {"X-Auth-Token": token})
    assert reply.status_code == 401
    assert reply.json()["unauthorized"]["code"] == 401
    assert reply.headers["WWW-Authenticate"] == f'Keystone uri="{identity.url}"'
    assert reply.headers["X-Openstack-Request-Id"].startswith("req-")
    assert guarded.everything() == before


def test_identity_headers_of_a_client_are_not_believed(guarded: Running, identity: Identity) -> None:
    instance = blue(guarded, identity)
    forged = {
        "X-Identity-Status": "Confirmed",
        "X-Project-Id": instance.project_id,
        "X-User-Id": "admin",
        "X-Roles": "admin",
    }
    assert guarded.act(instance, BODY, headers=forged).status_code == 401
    reader = as_user(identity, "rita", "blue")
    assert guarded.act(instance, BODY, headers={**forged, **reader}).status_code == 403


def test_readers_look_members_act_and_administrators_see_everything(guarded: Running, identity: Identity) -> None:
    instance = blue(guarded, identity)
    rita, mia, ada = (
        as_user(identity, user, project) for user, project in (("rita", "blue"), ("mia", "blue"), ("ada", "red"))
    )
    refused = guarded.act(instance, BODY, headers=rita)
    assert (refused.status_code, [*refused.json()]) == (403, ["forbidden"])
    accepted = guarded.act(instance, BODY, headers=mia)
    assert accepted.status_code == 200
    task_uri = accepted.json()["instance_snapshot"]["task_uri"]
    guarded.wait(task_uri, headers=mia)
    assert guarded.call("GET", task_uri, headers=rita).status_code == 200
    snapshot_id = accepted.json()["instance_snapshot"]["id"]
    path = f"/volume/v3/{instance.project_id}/instance-snapshots"
    shown = guarded.call("GET", f"{path}/{snapshot_id}", headers=rita).json()["instance_snapshot"]
    assert shown["project_id"] == instance.project_id
    assert guarded.call("DELETE", f"{path}/{snapshot_id}", headers=rita).status_code == 403
    own = f"/volume/v3/{identity.projects['red']}/instance-snapshots"
    seen = guarded.call("GET", own, headers=ada, params={"all_tenants": "1"}).json()["instance_snapshots"]
    (theirs,) = [one for one in seen if one["id"] == snapshot_id]
    # The administrator's task URI names the administrator's project: in another one it would be refused.
    assert guarded.call("GET", theirs["task_uri"], headers=ada).status_code == 200
    renamed = guarded.call("PUT", f"{own}/{snapshot_id}", headers=ada, json={"instance-snapshot": {"name": "two"}})
    assert renamed.status_code == 200


def test_what_another_project_owns_is_not_there(guarded: Running, identity: Identity) -> None:
    instance = blue(guarded, identity)
    mia, gus = as_user(identity, "mia", "blue"), as_user(identity, "gus", "green")
    accepted = guarded.act(instance, BODY, headers=mia).json()["instance_snapshot"]
    guarded.wait(accepted["task_uri"], headers=mia)
    green = identity.projects["green"]
    snapshots = f"/volume/v3/{green}/instance-snapshots"
    body = {"vm-restore": {"instance_snapshot_id": accepted["id"], "force": True}}
    own = guarded.instance(green)
    before = guarded.everything()
    replies = [
        guarded.call("GET", f"{snapshots}/{accepted['id']}", headers=gus),
        guarded.call("DELETE", f"{snapshots}/{accepted['id']}", headers=gus),
        guarded.call("PUT", f"{snapshots}/{accepted['id']}", headers=gus, json={"instance-snapshot": {"name": "x"}}),
        guarded.call("GET", accepted["task_uri"].replace(instance.project_id, green), headers=gus),
        guarded.call("POST", f"/compute/v2.1/{green}/servers/{instance.id}/action", headers=gus, json=BODY),
        guarded.call("POST", f"/compute/v2.1/{green}/servers/{instance.id}/action", headers=gus, json=body),
        guarded.call("POST", f"/compute/v2.1/{green}/servers/{own.id}/action", headers=gus, json=body),
        guarded.call("GET", f"/volume/v3/{green}/volumes/{instance.volume_ids[0]}", headers=gus),
    ]
    assert [(reply.status_code, [*reply.json()]) for reply in replies] == [(404, ["itemNotFound"])] * len(replies)
    assert guarded.call("GET", snapshots, headers=gus).json() == {"instance_snapshots": []}
    assert guarded.everything() == before


def test_the_path_must_name_the_project_of_the_token(guarded: Running, identity: Identity) -> None:
    headers = as_user(identity, "mia", "blue")
    reply = guarded.call("GET", f"/volume/v3/{identity.projects['green']}/instance-snapshots", headers=headers)
    assert reply.status_code == 400
    message = (
        f"Malformed request URL: URL's project_id '{identity.projects['green']}' doesn't match Context's project_id "
        f"'{identity.projects['blue']}'"
    )
    assert reply.json()["badRequest"]["message"] == message


def test_a_token_without_a_project_is_no_use(guarded: Running, identity: Identity) -> None:
    headers = {"X-Auth-Token": identity.token("mia", None)}
    reply = guarded.call("GET", f"/volume/v3/{identity.projects['blue']}/instance-snapshots", headers=headers)
    assert (reply.status_code, [*reply.json()]) == (403, ["forbidden"])


def test_a_revoked_token_is_refused(guarded: Running, identity: Identity) -> None:
    headers = as_user(identity, "mia", "blue")
    path = f"/volume/v3/{identity.projects['blue']}/instance-snapshots"
    identity.revoke(headers["X-Auth-Token"])
    assert guarded.call("GET", path, headers=headers).status_code == 401


def test_callers_are_told_to_wait_without_the_identity_service_and_documents_are_still_there(tmp_path: Path) -> None:
    with running(
        tmp_path, (None, "auth_strategy", "keystone"), config_files=[configured(tmp_path, "http://127.0.0.1:1/v3")]
    ) as api:
        reply = api.call("GET", "/v3/p/instance-snapshots", headers={"X-Auth-Token": "something"})
        assert (reply.status_code, [*reply.json()]) == (503, ["serviceUnavailable"])
        assert reply.headers["X-Openstack-Request-Id"].startswith("req-")
        assert api.call("GET", "/volume/v3/", headers={"X-Auth-Token": "something"}).status_code == 200
