"""Servers and volumes, as clients of Nova and Cinder look at them."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from stillframe.domain.errors import BackendError
from stillframe.domain.instance import PowerState
from tests.api.running import PATIENCE

if TYPE_CHECKING:
    from stillframe.domain.instance import Instance
    from tests.api.running import Running


@pytest.mark.parametrize(
    ("power", "status", "vm_state", "power_state"),
    [
        (PowerState.ACTIVE, "ACTIVE", "active", 1),
        (PowerState.PAUSED, "PAUSED", "paused", 3),
        (PowerState.SHUTOFF, "SHUTOFF", "stopped", 4),
        (PowerState.ERROR, "ERROR", "error", 0),
    ],
)
def test_a_server_is_shown_as_nova_shows_it(
    api: Running, power: PowerState, status: str, vm_state: str, power_state: int
) -> None:
    instance = api.instance(power_state=power)
    server = api.call("GET", f"/compute/v2.1/{instance.project_id}/servers/{instance.id}").json()["server"]
    assert (server["id"], server["name"], server["tenant_id"]) == (instance.id, "vm", instance.project_id)
    assert server["status"] == status
    assert (server["OS-EXT-STS:vm_state"], server["OS-EXT-STS:power_state"]) == (vm_state, power_state)
    assert server["OS-EXT-STS:task_state"] is None
    assert server["os-extended-volumes:volumes_attached"] == [{"id": one} for one in instance.volume_ids]
    links = {link["rel"]: link["href"] for link in server["links"]}
    assert links.keys() == {"self", "bookmark"}
    assert api.call("GET", links["self"]).json()["server"] == server


def test_a_volume_is_shown_as_cinder_shows_it(api: Running) -> None:
    instance = api.world.add_instance("gibibytes", "vm", [1, (1 << 30) + 1])
    one, other = (
        api.call("GET", f"/volume/v3/gibibytes/volumes/{volume_id}").json()["volume"]
        for volume_id in instance.volume_ids
    )
    assert (one["size"], other["size"]) == (1, 2)
    assert other["stillframe:size_bytes"] == (1 << 30) + 1
    assert (one["bootable"], other["bootable"]) == ("true", "false")
    # As PowerVC marks them; IBM's Ansible collection looks for it.
    assert (one["metadata"], other["metadata"]) == ({"is_boot_volume": "True"}, {})
    listed = api.call("GET", "/volume/v3/gibibytes/volumes/detail").json()["volumes"]
    assert [one["id"] for one in listed if one["metadata"].get("is_boot_volume") == "True"] == [instance.volume_ids[0]]
    assert one["status"] == "in-use"
    assert one["attachments"][0]["server_id"] == instance.id
    assert one["attachments"][0]["device"] == "/dev/vda"
    assert one["os-vol-tenant-attr:tenant_id"] == "gibibytes"
    assert {link["rel"] for link in one["links"]} == {"self", "bookmark"}
    api.world.remove_instance(instance.id)


def test_the_volumes_of_a_server_are_shown_as_nova_shows_them(api: Running) -> None:
    instance = api.instance()
    path = f"/compute/v2.1/{instance.project_id}/servers/{instance.id}/os-volume_attachments"
    first, second = (
        {"id": one, "volumeId": one, "serverId": instance.id, "device": device}
        for one, device in zip(instance.volume_ids, ("/dev/vda", "/dev/vdb"), strict=True)
    )
    assert api.call("GET", path).json() == {"volumeAttachments": [first, second]}
    assert api.call("GET", f"{path}/{instance.volume_ids[1]}").json() == {"volumeAttachment": second}
    assert api.call("GET", f"{path}/nothing").status_code == 404
    assert api.call("GET", path.replace(instance.project_id, "other")).status_code == 404


@pytest.mark.parametrize(("base", "name"), [("/compute/v2.1", "servers"), ("/volume/v3", "volumes")])
@pytest.mark.parametrize("detail", ["", "/detail"])
def test_servers_and_volumes_are_listed_by_pages(api: Running, base: str, name: str, detail: str) -> None:
    project = api.instance(volumes=1).project_id
    for _ in range(2):
        api.instance(project, volumes=1)
    path = f"{base}/{project}/{name}{detail}"
    whole = api.call("GET", path).json()
    assert whole.keys() == {name}
    assert len(whole[name]) == 3
    assert (len(whole[name][0]) > 3) == bool(detail)
    page = api.call("GET", path, params={"limit": 2}).json()
    assert page[name] == whole[name][:2]
    ((rest),) = [link["href"] for link in page[f"{name}_links"] if link["rel"] == "next"]
    assert api.call("GET", rest).json() == {name: whole[name][2:]}
    assert api.call("GET", path, params={"limit": 0}).json() == {name: []}
    assert api.call("GET", path, params={"marker": "nothing"}).status_code == 400
    assert api.call("GET", path, params={"limit": "x"}).status_code == 400
    # Clients send what Nova and Cinder know; what means nothing here changes nothing.
    assert api.call("GET", path, params={"deleted": "False"}).json() == whole


def test_servers_and_volumes_are_filtered_by_name_and_status(api: Running) -> None:
    off = api.instance()
    on = api.instance(off.project_id, power_state=PowerState.ACTIVE)

    def found(path: str, **query: str) -> list[Any]:
        (items,) = api.call("GET", path.format(project=off.project_id), params=query).json().values()
        return [item["id"] for item in items]

    assert found("/compute/v2.1/{project}/servers", status="ACTIVE") == [on.id]
    assert set(found("/compute/v2.1/{project}/servers", name="vm")) == {on.id, off.id}
    assert found("/compute/v2.1/{project}/servers", name="other") == []
    assert set(found("/volume/v3/{project}/volumes", name="vm-0")) == {on.volume_ids[0], off.volume_ids[0]}
    assert found("/volume/v3/{project}/volumes", status="available") == []


def test_servers_and_volumes_of_other_projects_are_not_there(api: Running) -> None:
    instance = api.instance()
    for path in (f"/compute/v2.1/other/servers/{instance.id}", f"/volume/v3/other/volumes/{instance.volume_ids[0]}"):
        assert api.call("GET", path).status_code == 404
    for path in ("/compute/v2.1/other/servers", "/volume/v3/other/volumes"):
        assert list(api.call("GET", path).json().values()) == [[]]
        assert api.call("GET", path, params={"all_tenants": "1"}).status_code == 403
    admin = {"X-Auth-Token": "admin:other"}
    servers = api.call("GET", "/compute/v2.1/other/servers", params={"all_tenants": "1"}, headers=admin).json()
    assert instance.id in [server["id"] for server in servers["servers"]]


def test_an_instance_is_stopped_and_started_once(api: Running) -> None:
    instance = api.instance(power_state=PowerState.ACTIVE)
    for action, status, vm_state in (
        ("os-stop", 202, "stopped"),
        ("os-stop", 409, "stopped"),
        ("os-start", 202, "active"),
        ("os-start", 409, "active"),
    ):
        reply = api.act(instance, {action: None})
        assert reply.status_code == status
        if status == 202:
            assert reply.content == b""
        else:
            verb = action.removeprefix("os-")
            message = f"Cannot '{verb}' instance {instance.id} while it is in vm_state {vm_state}"
            assert reply.json()["conflictingRequest"]["message"] == message
        assert settled(api, instance)["OS-EXT-STS:vm_state"] == vm_state


def test_what_is_being_switched_says_so_and_is_left_alone(api: Running) -> None:
    instance = api.instance(power_state=PowerState.ACTIVE)
    with api.faults.holding("stop"):
        assert api.act(instance, {"os-stop": None}).status_code == 202
        server = api.call("GET", f"/compute/v2.1/{instance.project_id}/servers/{instance.id}").json()["server"]
        assert (server["OS-EXT-STS:task_state"], server["status"]) == ("powering-off", "ACTIVE")
        listed = api.call("GET", f"/compute/v2.1/{instance.project_id}/servers/detail").json()["servers"]
        assert [one["OS-EXT-STS:task_state"] for one in listed] == ["powering-off"]
        before = api.everything()
        for body in ({"os-stop": None}, {"os-start": None}, {"vm-snapshot": {"name": "s"}}):
            reply = api.act(instance, body)
            assert reply.status_code == 409
            assert "task_state powering-off" in reply.json()["conflictingRequest"]["message"]
        assert api.everything() == before
    assert settled(api, instance)["status"] == "SHUTOFF"


def test_a_list_tells_of_a_stop_that_ends_while_it_is_made(api: Running) -> None:
    instance = api.instance(power_state=PowerState.ACTIVE)
    with ExitStack() as held:
        held.enter_context(api.faults.holding("stop"))
        assert api.act(instance, {"os-stop": None}).status_code == 202

        def ends() -> None:
            held.close()
            assert settled(api, instance)["status"] == "SHUTOFF"

        api.faults.follow("list_instances", ends)
        listed = api.call("GET", f"/compute/v2.1/{instance.project_id}/servers/detail").json()["servers"]
        api.faults.mend("list_instances")
    assert [(one["status"], one["OS-EXT-STS:task_state"]) for one in listed] == [("ACTIVE", "powering-off")]


def test_a_stop_that_fails_leaves_the_instance_as_it_is(api: Running, caplog: pytest.LogCaptureFixture) -> None:
    instance = api.instance(power_state=PowerState.ACTIVE)
    api.faults.fail("stop", BackendError("the guest's process did not end"), instance.id)
    with caplog.at_level("INFO"):
        reply = api.act(instance, {"os-stop": None})
        assert (reply.status_code, settled(api, instance)["status"]) == (202, "ACTIVE")
    assert f"instance {instance.id}: powering-off failed: the guest's process did not end" in caplog.text
    api.faults.mend("stop", instance.id)
    assert api.act(instance, {"os-stop": None}).status_code == 202
    assert settled(api, instance)["status"] == "SHUTOFF"


def test_an_instance_with_an_operation_is_neither_stopped_nor_started(api: Running) -> None:
    instance = api.instance(power_state=PowerState.ACTIVE)
    with api.faults.holding("cut"):
        accepted = api.act(instance, {"vm-snapshot": {"name": "s"}})
        reply = api.act(instance, {"os-stop": None})
        assert (reply.status_code, "Another operation" in reply.text) == (409, True)
    api.wait(accepted.json()["instance_snapshot"]["task_uri"])


def settled(api: Running, instance: Instance) -> dict[str, Any]:
    """The server once nothing is being done with it."""
    until = time.monotonic() + PATIENCE
    while True:
        reply = api.call("GET", f"/compute/v2.1/{instance.project_id}/servers/{instance.id}")
        server: dict[str, Any] = reply.json()["server"]
        if server["OS-EXT-STS:task_state"] is None:
            return server
        assert time.monotonic() < until, server
        time.sleep(0.01)
