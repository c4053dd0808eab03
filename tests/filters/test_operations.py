"""The operations of the contract, asked of Nova and Cinder, with a real service behind their filters."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.api.running import Mappings, Running, running
from tests.filters.cloud import Recorder, answering, cloud, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAPPING: dict[str, str | None] = {
    "name": "fcmap0", "status": "copying", "source_vdisk_name": "a", "target_vdisk_name": "b", "progress": "40",
    "incremental": "off", "restoring": "no", "restore_progress": None, "copyrate": None,
}  # fmt: skip
COMPUTE_MOUNTS = ["/v2.1", "/v2", "/compute/v2.1", "/front/compute/v2.1", "/inside/v2.1", "/inside/compute/v2.1"]
VOLUME_MOUNTS = ["/v3", "/volume/v3", "/front/volume/v3", "/inside/v3", "/inside/volume/v3"]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    file = folder / "stillframe.conf"
    file.write_text("[oslo_middleware]\nenable_proxy_headers_parsing = true\n")
    with running(folder, config_files=[str(file)], flashcopy=Mappings()) as service:
        yield service


@pytest.fixture(scope="module")
def front(api: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with cloud(tmp_path_factory.mktemp("cloud"), endpoint=api.url) as url:
        yield url


def call(method: str, url: str, **options: Any) -> requests.Response:
    return requests.request(method, url, timeout=60, allow_redirects=False, **options)


@pytest.mark.parametrize("mount", COMPUTE_MOUNTS)
@pytest.mark.parametrize("wrapper", ["vm-snapshot", "vm_snapshot"])
@pytest.mark.parametrize("project", ["with", "without"])
def test_a_snapshot_is_taken_by_an_action_of_a_server(
    api: Running, front: str, mount: str, wrapper: str, project: str
) -> None:
    instance = api.instance()
    token = {"X-Auth-Token": f"someone:{instance.project_id}"}
    base = front + mount + (f"/{instance.project_id}" if project == "with" else "")
    reply = call("POST", f"{base}/servers/{instance.id}/action", json={wrapper: {"name": "one"}}, headers=token)
    assert reply.status_code == 200, reply.text
    # The task is where Cinder is for this client: beside Nova, wherever that is.
    task_uri = reply.json()["instance_snapshot"]["task_uri"]
    beside = mount.rpartition("/")[0].replace("compute", "volume")
    assert task_uri.startswith(f"{front}{beside}/v3/{instance.project_id}/instance-snapshots/get_progress?action=")
    assert api.wait(task_uri, headers=token)["progress"] == 100


@pytest.mark.parametrize("mount", VOLUME_MOUNTS)
def test_everything_about_snapshots_is_asked_of_cinder(api: Running, front: str, mount: str) -> None:
    instance = api.instance()
    snapshot_id = api.snapshot(instance)
    listed = f"{front}{mount}/{instance.project_id}/instance-snapshots"
    assert [one["id"] for one in call("GET", listed).json()["instance_snapshots"]] == [snapshot_id]
    shown = call("GET", f"{listed}/{snapshot_id}").json()["instance_snapshot"]
    assert shown["task_uri"].startswith(f"{listed}/get_progress?")
    body = {"instance-snapshot": {"name": "twö"}}
    assert call("PUT", f"{listed}/{snapshot_id}", json=body).json() == {"instance_snapshot": {"id": snapshot_id}}
    assert call("GET", f"{listed}/{snapshot_id}/").json()["instance_snapshot"]["name"] == "twö"
    deleted = call("DELETE", f"{listed}/{snapshot_id}")
    assert deleted.status_code == 200
    assert api.wait(deleted.json()["task_uri"])["progress"] == 100
    assert call("GET", listed).json() == {"instance_snapshots": []}


@pytest.mark.parametrize("wrapper", ["vm-restore", "vm_restore"])
def test_an_instance_is_restored_by_an_action_of_a_server(api: Running, front: str, wrapper: str) -> None:
    instance = api.instance()
    snapshot_id = api.snapshot(instance)
    body = {wrapper: {"instance_snapshot_id": snapshot_id, "force": True}}
    url = f"{front}/compute/v2.1/{instance.project_id}/servers/{instance.id}/action"
    reply = call("POST", url, json=body)
    assert reply.status_code == 202
    assert api.wait(reply.json()["task_uri"])["progress"] == 100


@pytest.mark.parametrize("wrapper", ["copy-progress", "copy_progress"])
def test_flashcopy_mappings_are_asked_for_by_an_action_of_a_volume(api: Running, front: str, wrapper: str) -> None:
    instance = api.instance(volumes=1)
    assert api.flashcopy is not None
    api.flashcopy.of_volume[instance.volume_ids[0]] = [MAPPING]
    url = f"{front}/v3/{instance.project_id}/volumes/{instance.volume_ids[0]}/action"
    reply = call("POST", url, json={wrapper: {"details": False}})
    assert (reply.status_code, reply.json()["copy_details"][0]["progress"]) == (202, "40")


def test_refusals_come_back_as_the_service_gave_them(api: Running, front: str) -> None:
    instance = api.instance()
    requests_: list[tuple[str, str, dict[str, object] | None]] = [
        ("GET", f"/volume/v3/{instance.project_id}/instance-snapshots/{uuid.uuid4()}", None),
        ("GET", f"/volume/v3/instance-snapshots/{uuid.uuid4()}", None),
        ("POST", f"/volume/v3/volumes/{instance.volume_ids[0]}/action", {"copy-progress": {}}),
        ("PATCH", f"/volume/v3/{instance.project_id}/instance-snapshots/{uuid.uuid4()}", None),
        ("GET", f"/volume/v3/{instance.project_id}/instance-snapshots/get_progress?id=1", None),
        ("POST", f"/compute/v2.1/{instance.project_id}/servers/{uuid.uuid4()}/action", {"vm-snapshot": {"name": "x"}}),
        ("POST", f"/compute/v2.1/{instance.project_id}/servers/{instance.id}/action", {"vm-snapshot": {"nome": "x"}}),
    ]
    for method, path, body in requests_:
        direct = api.call(method, path, json=body)
        through = call(method, front + path, json=body)
        assert direct.status_code >= 400
        assert (through.status_code, through.json()) == (direct.status_code, direct.json())
        assert through.headers["X-Openstack-Request-Id"].startswith("req-")
        # The front's own server adds its mark.
        ours = {name.lower() for name in direct.headers if not name.lower().endswith("api-version")}
        assert {name.lower() for name in through.headers} - {"via"} == ours


def test_head_and_options_are_answered_without_a_body(api: Running, front: str) -> None:
    path = f"/volume/v3/{api.instance().project_id}/instance-snapshots"
    head = call("HEAD", front + path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == call("GET", front + path).headers["Content-Length"]
    # Not where WSGI's validator looks: it wants a type also where there is nothing that could be of one.
    options = call("OPTIONS", f"{front}/inside{path}")
    assert "GET" in options.headers["Allow"]


def test_the_service_is_told_the_token_and_the_request_and_nothing_that_the_client_says_of_itself(
    tmp_path: Path,
) -> None:
    recorder = Recorder()
    forged = dict.fromkeys(
        ("X-User-Id", "X-Roles", "X-Project-Id", "X-Identity-Status", "X-Service-Token", "X-Is-Admin-Project",
         "Openstack-System-Scope", "Authorization", "Forwarded", "X-Forwarded-Host", "X-Forwarded-Prefix", "Cookie"),
        "admin",
    )  # fmt: skip
    request_id = f"req-{uuid.uuid4()}"
    real = {"X-Auth-Token": "token", "X-Openstack-Request-Id": request_id, "Content-Type": "application/json"}
    with serving(recorder) as url, cloud(tmp_path, endpoint=url + "/below/") as front:
        body = b'{ "vm-snapshot" : {"name": "\xc3\xa9"} }'
        path = "/front/compute/v2.1/p/servers/s%C3%A9%20%3F%25/action"
        reply = call("POST", f"{front}{path}?a=%20%C3%A9&&b", data=body, headers={**forged, **real})
        assert reply.json() == {}
    (asked,) = recorder.requests
    assert (asked["body"], asked["REQUEST_METHOD"]) == (body, "POST")
    assert asked["PATH_INFO"] == "/below/compute/v2.1/p/servers/s\xc3\xa9 ?%/action"
    assert asked["QUERY_STRING"] == "a=%20%C3%A9&&b"
    host = front.removeprefix("http://")
    assert {name: value for name, value in asked.items() if name.startswith(("HTTP_", "CONTENT_"))} == {
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_HOST": url.removeprefix("http://"),
        "HTTP_ACCEPT_ENCODING": "identity",
        "HTTP_CONNECTION": "close",
        "HTTP_X_AUTH_TOKEN": "token",
        "HTTP_X_OPENSTACK_REQUEST_ID": request_id,
        "HTTP_X_FORWARDED_PROTO": "http",
        "HTTP_X_FORWARDED_HOST": host,
        "HTTP_X_FORWARDED_FOR": "127.0.0.1",
        "HTTP_X_FORWARDED_PREFIX": "/front",
    }


def test_a_reply_comes_back_without_what_was_about_its_connection(tmp_path: Path) -> None:
    answer = (
        b"HTTP/1.1 418 Short and stout\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Transfer-Encoding: chunked\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
        b"Content-Type: text/plain\r\nX-Who: caf\xe9\r\n\r\n"
        b"3\r\nabc\r\n2\r\n\x00\xff\r\n0\r\n\r\n"
    )
    with answering(answer) as url, cloud(tmp_path, endpoint=url) as front:
        reply = call("GET", f"{front}/v3/p/instance-snapshots")
    assert (reply.status_code, reply.reason, reply.content) == (418, "Short and stout", b"abc\x00\xff")
    assert reply.raw.headers.getlist("Set-Cookie") == ["a=1", "b=2"]
    assert (reply.headers["Content-Length"], reply.headers["X-Who"]) == ("5", "caf\xe9")
    assert not {"x-hop", "keep-alive", "transfer-encoding"} & {name.lower() for name in reply.headers}
