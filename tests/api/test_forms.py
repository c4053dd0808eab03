"""All the paths and spellings that clients use for the same things."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.api.running import running

if TYPE_CHECKING:
    from pathlib import Path

    from tests.api.running import Running

COMPUTE_FORMS = ["/compute/v2.1/{project}", "/compute/v2.1", "/v2.1/{project}", "/v2.1"]
VOLUME_FORMS = ["/volume/v3/{project}", "/volume/v3", "/v3/{project}", "/v3"]


@pytest.mark.parametrize("form", COMPUTE_FORMS)
@pytest.mark.parametrize("wrapper", ["vm-snapshot", "vm_snapshot"])
def test_every_form_of_the_compute_path_and_of_the_wrapper_works(api: Running, form: str, wrapper: str) -> None:
    instance = api.instance()
    # Without a project in the path, the token says it.
    token = {"X-Auth-Token": f"someone:{instance.project_id}"}
    path = f"{form.format(project=instance.project_id)}/servers/{instance.id}/action"
    reply = api.call("POST", path, json={wrapper: {"name": "one"}}, headers=token)
    assert reply.status_code == 200, reply.text
    task_uri = reply.json()["instance_snapshot"]["task_uri"]
    prefix = "/volume" if form.startswith("/compute") else ""
    assert task_uri.startswith(f"{api.url}{prefix}/v3/{instance.project_id}/instance-snapshots/get_progress?action=")
    assert api.wait(task_uri, headers=token)["progress"] == 100


@pytest.mark.parametrize("form", VOLUME_FORMS)
@pytest.mark.parametrize("wrapper", ["instance-snapshot", "instance_snapshot"])
def test_every_form_of_the_volume_path_and_of_the_wrapper_works(api: Running, form: str, wrapper: str) -> None:
    instance = api.instance()
    snapshot_id = api.snapshot(instance)
    token = {"X-Auth-Token": f"someone:{instance.project_id}"}
    project = form.format(project=instance.project_id)
    base = f"{project}/instance-snapshots"
    changed = api.call("PUT", f"{base}/{snapshot_id}", json={wrapper: {"name": "two"}}, headers=token)
    assert changed.status_code == 200
    shown = api.call("GET", f"{base}/{snapshot_id}/", headers=token).json()["instance_snapshot"]
    assert shown["name"] == "two"
    prefix = "/volume" if form.startswith("/volume") else ""
    assert shown["task_uri"].startswith(f"{api.url}{prefix}/v3/{instance.project_id}/")
    listed = api.call("GET", base, headers=token).json()["instance_snapshots"]
    assert [one["id"] for one in listed] == [snapshot_id]
    query = urlsplit(shown["task_uri"]).query
    assert api.call("GET", f"{base}/get_progress?{query}", headers=token).json()["details"]["progress"] == 100
    volumes = api.call("GET", f"{project}/volumes/detail", headers=token).json()["volumes"]
    assert {one["id"] for one in volumes} == set(instance.volume_ids)
    assert api.call("GET", f"{project}/volumes/{instance.volume_ids[0]}", headers=token).status_code == 200
    checked = f"{project}/volumes/{instance.volume_ids[0]}/action"
    # It is not on an array, and says so in every form.
    assert "not on" in api.call("POST", checked, json={"copy-progress": {}}, headers=token).text
    assert api.call("DELETE", f"{base}/{snapshot_id}", headers=token).status_code == 200


@pytest.mark.parametrize("yes", [True, "True", "true", "TRUE"])
@pytest.mark.parametrize("no", [False, "False", "false", "FALSE"])
def test_booleans_may_be_strings_of_any_case(api: Running, yes: object, no: object) -> None:
    instance = api.instance()
    snapshot_id = api.snapshot(instance)
    api.restore(instance, snapshot_id, force=yes, retry=no, rollback=no)
    assert api.show(instance, snapshot_id)["status"] == "available"


def test_a_body_without_a_content_type_is_taken_for_json(api: Running) -> None:
    instance = api.instance()
    path = f"/compute/v2.1/{instance.project_id}/servers/{instance.id}/action"
    reply = api.call("POST", path, data=b'{"vm-snapshot": {"name": "\xc3\xa9"}}')
    assert reply.status_code == 200
    api.wait(reply.json()["instance_snapshot"]["task_uri"])
    assert api.show(instance, reply.json()["instance_snapshot"]["id"])["name"] == "é"


def test_task_uris_start_with_the_public_endpoint_where_one_is_set(tmp_path: Path) -> None:
    with running(tmp_path, (None, "public_endpoint", "https://snap.example.org/api/")) as api:
        instance = api.instance()
        reply = api.act(instance, {"vm-snapshot": {"name": "one"}})
        assert reply.json()["instance_snapshot"]["task_uri"].startswith(
            f"https://snap.example.org/api/volume/v3/{instance.project_id}/instance-snapshots/get_progress?"
        )


FORWARDED = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "front.example.org", "X-Forwarded-Prefix": "/snap"}


def test_headers_of_a_proxy_are_not_believed_by_themselves(api: Running) -> None:
    instance = api.instance()
    reply = api.act(instance, {"vm-snapshot": {"name": "one"}}, headers=FORWARDED)
    assert reply.json()["instance_snapshot"]["task_uri"].startswith(api.url)
    api.wait(reply.json()["instance_snapshot"]["task_uri"])


def test_headers_of_a_proxy_are_honoured_when_configured(tmp_path: Path) -> None:
    file = tmp_path / "stillframe.conf"
    file.write_text("[oslo_middleware]\nenable_proxy_headers_parsing = true\n")
    with running(tmp_path, config_files=[str(file)]) as api:
        instance = api.instance()
        reply = api.act(instance, {"vm-snapshot": {"name": "one"}}, headers=FORWARDED)
        task_uri = reply.json()["instance_snapshot"]["task_uri"]
        assert task_uri.startswith(f"https://front.example.org/snap/volume/v3/{instance.project_id}/")


@pytest.mark.parametrize("form", VOLUME_FORMS)
def test_the_volume_that_an_instance_boots_from_is_marked_and_no_other(api: Running, form: str) -> None:
    instance = api.instance()
    boot, data = instance.volume_ids
    # It would still boot, but no instance does from it.
    spare = replace(api.world.volumes[boot], id=str(uuid.uuid4()), instance_id=None, device=None, status="available")
    labelled = replace(api.world.volumes[data], metadata={"tier": "gold"})
    api.world.volumes.update({spare.id: spare, data: labelled})
    token = {"X-Auth-Token": f"someone:{instance.project_id}"}
    volumes = f"{form.format(project=instance.project_id)}/volumes"
    told = {boot: {"is_boot_volume": "True"}, data: {"tier": "gold"}, spare.id: {}}
    listed = api.call("GET", f"{volumes}/detail", headers=token).json()["volumes"]
    assert {one["id"]: one["metadata"] for one in listed} == told
    for volume_id, metadata in told.items():
        assert api.call("GET", f"{volumes}/{volume_id}", headers=token).json()["volume"]["metadata"] == metadata
