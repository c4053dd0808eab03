"""What is refused, how, and that a refused request has changed nothing."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from stillframe.domain.errors import BackendError, Damaged, OutOfSpace, Unavailable
from stillframe.domain.instance import PowerState
from tests.api.running import running

if TYPE_CHECKING:
    from stillframe.domain.instance import Instance
    from tests.api.running import Running

ACTION = "/compute/v2.1/{project}/servers/{server}/action"
SNAPSHOT = "/volume/v3/{project}/instance-snapshots/{snapshot}"
VOLUME = "/volume/v3/{project}/volumes/{volume}/action"
RESTORE = '{"vm-restore": {"instance_snapshot_id": "%s"%s}}'
DEEP = "[" * 30000


@pytest.fixture(scope="module")
def subject(api: Running) -> tuple[Instance, str]:
    """A running instance with one snapshot, which all the refusals are about."""
    instance = api.instance(power_state=PowerState.ACTIVE)
    return instance, api.snapshot(instance)


def send(api: Running, subject: tuple[Instance, str], method: str, path: str, body: str | None) -> Any:
    instance, snapshot_id = subject
    names = {
        "project": instance.project_id,
        "server": instance.id,
        "snapshot": snapshot_id,
        "volume": instance.volume_ids[0],
    }
    if body is not None:
        for name, value in names.items():
            body = body.replace(f"<{name}>", value)
    headers = {"Content-Type": "application/json"}
    data = None if body is None else body.encode("utf-8", "surrogateescape")
    return api.call(method, path.format(**names), data=data, headers=headers)


REFUSED = [
    # Malformed bodies
    ("POST", ACTION, None, 400, "not JSON"),
    ("POST", ACTION, "", 400, "not JSON"),
    ("POST", ACTION, "{", 400, "not JSON"),
    ("POST", ACTION, "[]", 400, "JSON object"),
    ("POST", ACTION, "null", 400, "JSON object"),
    ("POST", ACTION, "{}", 400, "vm-restore, vm-snapshot"),
    ("POST", ACTION, "\udcff\udcfe", 400, "not UTF-8"),
    ("POST", ACTION, DEEP, 400, "nested too deeply"),
    ("POST", ACTION, '{"vm-snapshot": %s' % ('{"a":' * 5000), 400, "deeply"),
    ("POST", ACTION, '{"vm-snapshot": {"name": NaN}}', 400, "NaN"),
    ("POST", ACTION, '{"vm-snapshot": {"name": "a", "name": "b"}}', 400, "'name' occurs twice"),
    ("POST", ACTION, '{"vm-snapshot": %s}' % ("1" * 5000), 400, ""),
    ("POST", ACTION, '{"reboot": {}}', 400, "reboot: "),
    ("POST", ACTION, '{"vm-snapshot": {"name": "a"}, "reboot": {}}', 400, "reboot: "),
    ("POST", ACTION, '{"vm-snapshot": {"name": "a"}, "vm-restore": {}}', 400, "vm-restore: there must be exactly one"),
    # Snapshots
    ("POST", ACTION, '{"vm-snapshot": null}', 400, "vm-snapshot: "),
    ("POST", ACTION, '{"vm-snapshot": []}', 400, "vm-snapshot: "),
    ("POST", ACTION, '{"vm-snapshot": {}}', 400, "vm-snapshot.name: "),
    ("POST", ACTION, '{"vm_snapshot": {}}', 400, "vm_snapshot.name: "),
    ("POST", ACTION, '{"vm-snapshot": {"name": ""}}', 400, "vm-snapshot.name: "),
    ("POST", ACTION, '{"vm-snapshot": {"name": " "}}', 400, "vm-snapshot.name: "),
    ("POST", ACTION, '{"vm-snapshot": {"name": null}}', 400, "vm-snapshot.name: "),
    ("POST", ACTION, '{"vm-snapshot": {"name": 7}}', 400, "vm-snapshot.name: "),
    ("POST", ACTION, '{"vm-snapshot": {"name": "%s"}}' % ("x" * 256), 400, "vm-snapshot.name: "),
    ("POST", ACTION, '{"vm-snapshot": {"name": "a\\u0000b"}}', 400, "vm-snapshot.name: must not contain a NUL"),
    ("POST", ACTION, '{"vm-snapshot": {"name": "\\ud800"}}', 400, "vm-snapshot.name: must not contain a lone"),
    ("POST", ACTION, '{"vm-snapshot": {"name": "a", "\\ud800": 1}}', 400, "lone surrogate"),
    ("POST", ACTION, '{"vm-snapshot": {"name": "a", "description": "%s"}}' % ("x" * 256), 400, ".description: "),
    ("POST", ACTION, '{"vm-snapshot": {"name": "a", "force": true}}', 400, "vm-snapshot.force: "),
    ("POST", ACTION, '{"vm-snapshot": {"name": "a", "volumes": "<volume>"}}', 400, "vm-snapshot.volumes: "),
    ("POST", ACTION, '{"vm-snapshot": {"name": "a", "volumes": ["<volume>", 7]}}', 400, "vm-snapshot.volumes.1: "),
    ("POST", ACTION, '{"vm-snapshot": {"name": "a", "volumes": ["nowhere"]}}', 400, "vm-snapshot.volumes.0: "),
    ("POST", ACTION, '{"vm-snapshot": {"name": "a", "volumes": {}}}', 400, "vm-snapshot.volumes: "),
    # Restores
    ("POST", ACTION, '{"vm-restore": {}}', 400, "vm-restore.instance_snapshot_id: "),
    ("POST", ACTION, '{"vm-restore": {"instance_snapshot_id": ""}}', 400, "vm-restore.instance_snapshot_id: "),
    ("POST", ACTION, RESTORE % ("<snapshot>", ', "force": 1'), 400, "vm-restore.force: "),
    ("POST", ACTION, RESTORE % ("<snapshot>", ', "force": "yes"'), 400, "vm-restore.force: "),
    ("POST", ACTION, RESTORE % ("<snapshot>", ', "force": null'), 400, "vm-restore.force: "),
    ("POST", ACTION, RESTORE % ("<snapshot>", ', "retry": true, "rollback": true'), 400, "exclude each other"),
    ("POST", ACTION, RESTORE % ("<snapshot>", ', "color": "red"'), 400, "vm-restore.color: "),
    ("POST", ACTION, RESTORE % ("<snapshot>", ""), 400, "force"),
    ("POST", ACTION, RESTORE % ("<snapshot>", ', "force": true, "retry": true'), 400, "restore-error"),
    ("POST", ACTION, RESTORE % ("<snapshot>", ', "force": true, "rollback": true'), 400, "restore-error"),
    ("POST", ACTION, RESTORE % ("nowhere", ""), 404, "nowhere"),
    # Power
    ("POST", ACTION, '{"os-start": null}', 409, "Cannot 'start' instance"),
    ("POST", ACTION, '{"os-start": {"hard": true}}', 400, "os-start.hard: "),
    ("POST", ACTION, '{"os-stop": 1}', 400, "os-stop: "),
    # Updates and deletions
    ("PUT", SNAPSHOT, '{"instance-snapshot": {}}', 400, "instance-snapshot: "),
    ("PUT", SNAPSHOT, '{"instance-snapshot": {"name": null}}', 400, "instance-snapshot.name: "),
    ("PUT", SNAPSHOT, '{"instance-snapshot": {"name": "a", "status": "error"}}', 400, "instance-snapshot.status: "),
    ("PUT", SNAPSHOT, '{"snapshot": {"name": "a"}}', 400, "snapshot: "),
    ("PUT", SNAPSHOT + "x", '{"instance-snapshot": {"name": "a"}}', 404, ""),
    ("DELETE", SNAPSHOT + "x", None, 404, ""),
    # Volumes
    ("POST", VOLUME, '{"copy-progress": {"details": "perhaps"}}', 400, "copy-progress.details: "),
    ("POST", VOLUME, '{"copy-progress": {"detail": true}}', 400, "copy-progress.detail: "),
    ("POST", "/volume/v3/{project}/volumes/nowhere/action", '{"copy-progress": {}}', 404, "nowhere"),
    # Paths
    ("POST", "/compute/v2.1/{project}/servers/nowhere/action", '{"vm-snapshot": {"name": "a"}}', 404, "nowhere"),
    ("POST", "/compute/v2.1/other/servers/{server}/action", '{"vm-snapshot": {"name": "a"}}', 404, ""),
    ("PUT", "/volume/v3/other/instance-snapshots/{snapshot}", '{"instance-snapshot": {"name": "a"}}', 404, ""),
    ("DELETE", "/volume/v3/other/instance-snapshots/{snapshot}", None, 404, ""),
    ("GET", "/volume/v3/other/instance-snapshots/{snapshot}", None, 404, ""),
    ("GET", "/volume/v3/{project}/instance-snapshots/detail", None, 404, ""),
    ("GET", "/volume/v3/{project}/instance-snapshots/%00", None, 400, "id: "),
    ("GET", "/volume/v3/{project}/instance-snapshots/%ff%fe", None, 404, ""),
    ("GET", "/volume/v3/{project}/instance-snapshots/get_progress", None, 400, "action: "),
    ("GET", "/volume/v3/{project}/instance-snapshots/get_progress?action=snapshot&task_id=x&id=y", None, 404, ""),
    ("GET", "/nowhere", None, 404, ""),
    ("GET", "/v2.0/{project}/servers", None, 404, ""),
    ("PATCH", SNAPSHOT, "{}", 405, ""),
    ("GET", ACTION, None, 405, ""),
    ("TRACE", SNAPSHOT, None, 501, "no such method"),
    ("BREW", SNAPSHOT, None, 501, "no such method"),
    ("BREW", "/nowhere", None, 501, "no such method"),
]
NAMES = {400: "badRequest", 404: "itemNotFound", 405: "badMethod", 409: "conflictingRequest", 501: "notImplemented"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "part"),
    REFUSED,
    ids=[f"{row[0]} {row[1].rsplit('/', 1)[-1]} {(row[2] or '')[:60]}" for row in REFUSED],
)
def test_a_refused_request_says_why_and_changes_nothing(  # a table's columns
    api: Running, subject: tuple[Instance, str], method: str, path: str, body: str | None, status: int, part: str
) -> None:
    before = api.everything()
    reply = send(api, subject, method, path, body)
    assert reply.status_code == status, reply.text
    document = json.loads(reply.content)
    assert document.keys() == {NAMES[status]}
    assert document[NAMES[status]].keys() == {"code", "message"}
    assert document[NAMES[status]]["code"] == status
    assert part in document[NAMES[status]]["message"]
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["X-Openstack-Request-Id"].startswith("req-")
    assert "Traceback" not in reply.text
    assert api.everything() == before


def test_a_method_that_is_not_allowed_says_which_are(api: Running) -> None:
    reply = api.call("POST", "/volume/v3/project/instance-snapshots/one")
    assert reply.status_code == 405
    assert {one.strip() for one in reply.headers["Allow"].split(",")} == {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"}


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/xml",
        "application/json-patch+json",
        "application/json; charset=utf-16",
        "json",
        ";",
    ],
)
def test_bodies_that_are_not_json_are_refused_by_their_type(api: Running, kind: str) -> None:
    instance = api.instance()
    path = ACTION.format(project=instance.project_id, server=instance.id)
    reply = api.call("POST", path, data='{"vm-snapshot": {"name": "a"}}', headers={"Content-Type": kind})
    assert (reply.status_code, [*reply.json()]) == (415, ["badMediaType"])


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON ; charset=UTF-8", 'application/json;charset="utf8"']
)
def test_json_may_be_told_in_several_ways(api: Running, kind: str) -> None:
    reply = api.call("POST", "/v2.1/p/servers/nowhere/action", data='{"os-stop": null}', headers={"Content-Type": kind})
    assert reply.status_code == 404


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, identity", "x"])
def test_bodies_that_are_encoded_are_refused_as_what_they_are(api: Running, encoding: str) -> None:
    instance = api.instance()
    before = api.everything()
    for method, path, body in (
        ("POST", ACTION.format(project=instance.project_id, server=instance.id), b'{"vm-snapshot": {"name": "a"}}'),
        ("PUT", SNAPSHOT.format(project=instance.project_id, snapshot="any"), gzip.compress(b"{}", mtime=0)),
    ):
        reply = api.call(method, path, data=body, headers={"Content-Encoding": encoding})
        assert (reply.status_code, reply.json()["badMediaType"]["code"]) == (415, 415)
        assert "Content-Encoding" in reply.json()["badMediaType"]["message"]
        assert reply.headers["Accept-Encoding"] == "identity"
    assert api.everything() == before


BUSY = {"creating": "complete", "deleting": "delete", "restoring": "restore", "rolling-back": "restore"}


@pytest.mark.parametrize("status", BUSY)
def test_whatever_would_change_a_busy_instance_or_snapshot_has_to_wait(api: Running, status: str) -> None:
    instance, other = api.instance(), ""
    if status != "creating":
        other = api.snapshot(instance, "other")
    snapshot_id = "" if status == "creating" else api.snapshot(instance)
    restore: dict[str, object] = {"instance_snapshot_id": snapshot_id}
    if status == "rolling-back":
        api.faults.fail("restore", BackendError("broken"), instance.volume_ids[0])
        api.restore(instance, snapshot_id)
        api.faults.mend("restore", instance.volume_ids[0])
        restore["rollback"] = True
    with api.faults.holding(BUSY[status]):
        if status == "creating":
            reply = api.act(instance, {"vm-snapshot": {"name": "one"}})
            snapshot_id = reply.json()["instance_snapshot"]["id"]
        elif status == "deleting":
            reply = api.call("DELETE", SNAPSHOT.format(project=instance.project_id, snapshot=snapshot_id))
        else:
            reply = api.act(instance, {"vm-restore": restore})
        assert reply.status_code in (200, 202), reply.text
        task_uri = reply.json().get("instance_snapshot", reply.json())["task_uri"]
        assert api.show(instance, snapshot_id)["status"] == status
        of_snapshot = SNAPSHOT.format(project=instance.project_id, snapshot=snapshot_id)
        named = {"instance_snapshot_id": snapshot_id}
        asked = [
            ("PUT", of_snapshot, {"instance-snapshot": {"name": "x"}}),
            ("DELETE", of_snapshot, None),
            *(
                ("POST", ACTION.format(project=instance.project_id, server=instance.id), body)
                for body in (
                    {"vm-snapshot": {"name": "x"}},
                    {"vm-snapshot": {"name": "x", "minimum_consistency": "application"}},
                    {"vm-restore": named},
                    {"vm-restore": {**named, "retry": True}},
                    {"vm-restore": {**named, "rollback": True, "force": True}},
                    {"os-start": None},
                    *([{"vm-restore": {"instance_snapshot_id": other, "retry": True}}] if other else []),
                )
            ),
            *([("DELETE", SNAPSHOT.format(project=instance.project_id, snapshot=other), None)] if other else []),
        ]
        for method, path, body in asked:
            refused = api.call(method, path, json=body)
            assert refused.status_code == 409, (method, body, refused.text)
            assert refused.json()["conflictingRequest"]["message"]
    details = api.wait(task_uri)
    assert details["flow_details"].popitem()[1] == "SUCCESS"


def test_long_bodies_are_refused_whether_or_not_they_say_their_length(api: Running) -> None:
    before = api.everything()
    long = b'{"vm-snapshot": {"name": "' + b"x" * 70000 + b'"}}'
    for body in (long, iter([long[:40000], long[40000:]])):
        reply = api.call("POST", "/compute/v2.1/p/servers/s/action", data=body)
        assert reply.status_code == 413, reply.text
        assert reply.json()["overLimit"]["code"] == 413
        assert reply.headers["X-Openstack-Request-Id"]
    assert api.everything() == before


def test_volumes_of_other_back_ends_have_no_mappings(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running(tmp_path_factory.mktemp("plain")) as api:
        instance = api.instance()
        reply = api.call(
            "POST",
            VOLUME.format(project=instance.project_id, volume=instance.volume_ids[0]),
            json={"copy-progress": {"details": False}},
        )
        assert reply.status_code == 400
        assert "not on IBM Storage Virtualize" in reply.json()["badRequest"]["message"]


def test_an_instance_without_volumes_has_nothing_to_snapshot(api: Running) -> None:
    reply = api.act(api.instance(volumes=0), {"vm-snapshot": {"name": "a"}})
    assert (reply.status_code, "no volumes" in reply.text) == (400, True)


def test_a_snapshot_of_another_instance_is_no_way_to_restore_this_one(api: Running) -> None:
    first = api.instance()
    second = api.instance(first.project_id)
    snapshot_id = api.snapshot(first)
    reply = api.act(second, {"vm-restore": {"instance_snapshot_id": snapshot_id}})
    assert reply.status_code == 400
    assert reply.json()["badRequest"]["message"].startswith("vm-restore.instance_snapshot_id: ")


@pytest.mark.parametrize(
    ("error", "status", "name", "message"),
    [
        (Unavailable("the array does not answer"), 503, "serviceUnavailable", "the array does not answer"),
        (OutOfSpace("there is no room"), 400, "badRequest", "there is no room"),
        (Damaged("the copy is not what it was"), 400, "badRequest", "the copy is not what it was"),
        (BackendError("the array said no"), 500, "computeFault", "the array said no"),
        (RuntimeError("secret detail"), 500, "computeFault", "An unexpected error occurred"),
    ],
)
def test_a_failing_platform_is_reported_without_a_traceback(
    api: Running, error: Any, status: int, name: str, message: str
) -> None:
    instance = api.instance()
    before = api.everything()
    api.faults.fail("get_instance", error, instance.id)
    reply = api.act(instance, {"vm-snapshot": {"name": "a"}})
    api.faults.mend("get_instance", instance.id)
    assert reply.status_code == status
    assert reply.json()[name]["code"] == status
    assert reply.json()[name]["message"].startswith(message)
    assert "Traceback" not in reply.text
    assert "secret" not in reply.text
    assert api.everything() == before
