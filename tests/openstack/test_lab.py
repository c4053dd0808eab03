"""The lab does what tests of Stillframe will rely on, with real bytes."""

from __future__ import annotations

import pytest

from tests.lab.openstack.filters import Filter
from tests.lab.openstack.fixtures import needs_lab
from tests.lab.openstack.glance import IMAGE_BYTES
from tests.lab.openstack.lab import Lab
from tests.lab.openstack.services import until
from tests.lab.openstack.tenant import Tenant, checked
from tests.openstack.service import holdings

pytestmark = [pytest.mark.openstack, needs_lab]

OLD, NEW = b"as it was" * 500, b"as it is " * 500
MIDDLE = 1 << 29


@pytest.fixture(params=["rawfile", "rbd"])
def kind(request: pytest.FixtureRequest, lab: Lab) -> str:
    """A volume type: of each back end that the lab has."""
    if request.param not in lab.volume_types:
        pytest.skip("this lab has no Ceph (STILLFRAME_OPENSTACK_CEPH=1)")
    return str(request.param)


def status(tenant: Tenant, volume_id: str) -> str:
    return str(checked(tenant.volume.get(f"/volumes/{volume_id}"))["volume"]["status"])


def test_a_server_has_a_root_from_an_image_and_two_data_volumes_with_real_bytes(
    lab: Lab, tenant: Tenant, kind: str
) -> None:
    root = tenant.create_volume(kind=kind, imageRef=lab.image_id)
    data = [tenant.create_volume(kind=kind) for _ in range(2)]
    server = tenant.create_server([root, *data])
    assert lab.read_volume(root, length=len(IMAGE_BYTES)) == IMAGE_BYTES
    for number, volume in enumerate(data):
        lab.write_volume(volume, MIDDLE + number, OLD)
        assert lab.read_volume(volume, MIDDLE + number, len(OLD)) == OLD
    attached = checked(tenant.compute.get(f"/servers/{server}/os-volume_attachments"))["volumeAttachments"]
    assert {one["volumeId"] for one in attached} == {root, *data}
    assert set(lab.guests()["disks"][server]) == {root, *data}


def test_a_stopped_server_goes_back_to_the_newest_snapshot_in_a_window_of_statuses(
    lab: Lab, tenant: Tenant, kind: str
) -> None:
    volumes = [tenant.create_volume(kind=kind) for _ in range(2)]
    server = tenant.create_server(volumes)
    for volume in volumes:
        lab.write_volume(volume, MIDDLE, OLD)
    snapshots = {volume: tenant.create_snapshot(volume) for volume in volumes}
    for volume in volumes:
        lab.write_volume(volume, MIDDLE, NEW)
        assert tenant.revert(volume, snapshots[volume]).status_code == 409
    tenant.stop(server)
    before = checked(tenant.compute.get(f"/servers/{server}/os-volume_attachments"))
    for volume in volumes:
        tenant.reset(volume, "available")
        checked(tenant.revert(volume, snapshots[volume]), 202)
        tenant.wait_volume(volume, "available")
        tenant.reset(volume, "in-use")
        assert lab.read_volume(volume, MIDDLE, len(OLD)) == OLD
    assert checked(tenant.compute.get(f"/servers/{server}/os-volume_attachments")) == before
    tenant.start(server)
    assert lab.guests()["disks"][server] == volumes


def test_a_revert_that_is_ordered_to_fail_leaves_the_volume_in_error_and_can_be_tried_again(
    lab: Lab, tenant: Tenant
) -> None:
    volume = tenant.create_volume()
    lab.write_volume(volume, 0, OLD)
    snapshot = tenant.create_snapshot(volume)
    lab.write_volume(volume, 0, NEW)
    lab.order_fault("revert_to_snapshot", target=volume)
    checked(tenant.revert(volume, snapshot), 202)
    tenant.wait_volume(volume, "error")
    assert lab.read_volume(volume, 0, len(NEW)) == NEW
    assert [order["times"] for order in lab.faults()] == [0]
    tenant.reset(volume, "available")
    checked(tenant.revert(volume, snapshot), 202)
    tenant.wait_volume(volume, "available")
    assert lab.read_volume(volume, 0, len(OLD)) == OLD


def test_a_revert_that_happens_and_then_fails_has_happened(lab: Lab, tenant: Tenant) -> None:
    volume = tenant.create_volume()
    snapshot = tenant.create_snapshot(volume)
    lab.write_volume(volume, 0, NEW)
    lab.order_fault("revert_to_snapshot", target=snapshot, action="fail_after")
    checked(tenant.revert(volume, snapshot), 202)
    tenant.wait_volume(volume, "error")
    assert lab.read_volume(volume, 0, len(NEW)) == bytes(len(NEW))


def test_a_group_of_attached_volumes_is_cut_at_once(lab: Lab, tenant: Tenant) -> None:
    body = {
        "name": "all of it",
        "group_type": lab.group_type_id,
        "volume_types": [lab.volume_types["rawfile-group"]],
    }
    group = checked(tenant.volume.post("/groups", json={"group": body}), 202)["group"]["id"]
    tenant.wait("groups", group, "available")
    volumes = [tenant.create_volume(kind="rawfile-group", group_id=group) for _ in range(2)]
    tenant.create_server(volumes)
    for volume in volumes:
        lab.write_volume(volume, 0, OLD)
    cut = checked(tenant.volume.post("/group_snapshots", json={"group_snapshot": {"name": "one", "group_id": group}}))
    tenant.wait("group_snapshots", cut["group_snapshot"]["id"], "available")
    snapshots = checked(tenant.volume.get("/snapshots/detail"))["snapshots"]
    assert {one["volume_id"] for one in snapshots} == set(volumes)
    for volume in volumes:
        lab.write_volume(volume, 0, NEW)
    for snapshot in snapshots:
        copy = tenant.create_volume(kind="rawfile-group", snapshot_id=snapshot["id"])
        assert lab.read_volume(copy, 0, len(OLD)) == OLD


def test_a_volume_service_killed_in_a_revert_leaves_it_reverting_and_comes_back(lab: Lab, tenant: Tenant) -> None:
    volume = tenant.create_volume()
    lab.write_volume(volume, 0, OLD)
    snapshot = tenant.create_snapshot(volume)
    lab.write_volume(volume, 0, NEW)
    lab.order_fault("revert_to_snapshot", target=volume, action="hang", seconds=600)
    checked(tenant.revert(volume, snapshot), 202)
    until(lambda: lab.faults()[0]["times"] == 0, 30)
    service = lab.cinder.volumes["rawfile"]
    service.kill()
    assert not service.running
    service.start()
    assert status(tenant, volume) == "reverting"
    tenant.reset(volume, "available")
    body = {"os-reset_status": {"status": "available"}}
    checked(tenant.administrator.post(f"/snapshots/{snapshot}/action", json=body), 202)
    checked(tenant.revert(volume, snapshot), 202)
    tenant.wait_volume(volume, "available")
    assert lab.read_volume(volume, 0, len(OLD)) == OLD


def test_the_hypervisor_remembers_its_guests_when_it_is_killed(lab: Lab, tenant: Tenant) -> None:
    server = tenant.create_server([tenant.create_volume()])
    lab.nova.compute.kill()
    lab.nova.compute.start()
    tenant.wait_server(server, "ACTIVE")
    tenant.stop(server)
    tenant.start(server)


def test_a_lock_from_the_service_project_keeps_the_owner_out(lab: Lab, tenant: Tenant) -> None:
    server = tenant.create_server([tenant.create_volume()])
    tenant.stop(server)
    service = lab.api("stillframe", "compute")
    checked(service.post(f"/servers/{server}/action", json={"lock": {"locked_reason": "a restore"}}), 202)
    assert tenant.act(server, "os-start").status_code == 409
    assert tenant.act(server, "unlock").status_code == 403
    assert tenant.compute.delete(f"/servers/{server}").status_code == 409
    checked(service.post(f"/servers/{server}/action", json={"unlock": None}), 202)
    tenant.start(server)


def test_roles_and_projects_are_kept_apart(lab: Lab, tenant: Tenant) -> None:
    server = tenant.create_server([tenant.create_volume()])
    reader, stranger = lab.api("alpha-reader", "compute"), lab.api("beta-member", "compute")
    assert reader.get(f"/servers/{server}").status_code == 200
    assert reader.post(f"/servers/{server}/action", json={"os-stop": None}).status_code == 403
    assert stranger.get(f"/servers/{server}").status_code == 404
    assert lab.api("stillframe", "compute").get(f"/servers/{server}").status_code == 200


def test_filters_of_ours_see_who_calls_and_extensions_of_ours_are_loaded(lab: Lab, tenant: Tenant) -> None:
    probe = Filter("tests.lab.openstack.probe:echo", {"endpoint": "http://127.0.0.1:1"})
    lab.extend_apis(probe, probe, ["tests.lab.openstack.probe_extension.volume_extensions"])
    try:
        for api in (tenant.compute, tenant.volume):
            seen = checked(api.get("/probe", headers={"X-Roles": "admin"}), 200)
            assert seen["options"] == {"endpoint": "http://127.0.0.1:1"}
            assert seen["HTTP_X_PROJECT_ID"] == lab.projects["alpha"]
            assert seen["HTTP_X_IDENTITY_STATUS"] == "Confirmed"
            assert set(seen["HTTP_X_ROLES"].split(",")) == {"member", "reader"}
            assert api.get("/probe", authenticated=False).status_code == 401
        loaded = checked(tenant.volume.get("/extensions"))["extensions"]
        assert "lab-probed" in {one["alias"] for one in loaded}
    finally:
        lab.extend_apis()
    assert tenant.compute.get("/probe").status_code == 404


def test_a_test_that_breaks_off_leaves_nothing_to_the_next_one(lab: Lab, tenant: Tenant) -> None:
    before = holdings(lab, tenant)
    body = {"name": "g", "group_type": lab.group_type_id, "volume_types": [lab.volume_types["rawfile-group"]]}
    group = checked(tenant.volume.post("/groups", json={"group": body}), 202)["group"]["id"]
    tenant.wait("groups", group, "available")
    volumes = [tenant.create_volume(), tenant.create_volume(kind="rawfile-group", group_id=group)]
    server = tenant.create_server(volumes)
    for left in ("creating", "restoring", "deleting", "error_deleting"):
        action = {"os-reset_status": {"status": left}}
        checked(tenant.administrator.post(f"/snapshots/{tenant.create_snapshot(volumes[0])}/action", json=action), 202)
    safety = {"volume_id": volumes[0], "name": "of the service's project", "force": True}
    checked(tenant.administrator.post("/snapshots", json={"snapshot": safety}, microversion="3.65"), 202)
    lab.order_fault("delete_group_snapshot")
    cut = checked(tenant.volume.post("/group_snapshots", json={"group_snapshot": {"name": "one", "group_id": group}}))
    tenant.wait("group_snapshots", cut["group_snapshot"]["id"], "available")
    checked(tenant.volume.delete(f"/group_snapshots/{cut['group_snapshot']['id']}"), 202)
    tenant.wait("group_snapshots", cut["group_snapshot"]["id"], "error")
    lab.order_fault("create_snapshot", target=volumes[0], action="hang", seconds=600)
    checked(tenant.volume.post("/snapshots", json={"snapshot": {"volume_id": volumes[0]}}), 202)
    until(lambda: not any(order["times"] for order in lab.faults()), 30)
    tenant.reset(volumes[0], "error_deleting")
    checked(lab.api("stillframe", "compute").post(f"/servers/{server}/action", json={"lock": None}), 202)
    lab.cinder.volumes["rawfile"].kill()
    lab.nova.compute.freeze()
    lab.mend()
    tenant.remove_everything()
    assert holdings(lab, tenant) == before


def test_what_cannot_be_removed_is_told_once(lab: Lab, tenant: Tenant) -> None:
    volume = tenant.create_volume()
    lab.order_fault("delete_volume", target=volume, times=100)
    with pytest.raises(TimeoutError, match=volume):
        tenant.remove_everything(patience=3)
    tenant.remove_everything(patience=3)
    lab.given_up.clear()
