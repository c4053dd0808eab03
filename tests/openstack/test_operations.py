"""Instance snapshots of servers with real volumes, by users with real tokens."""

from __future__ import annotations

import time

import pytest

from tests.lab.openstack.fixtures import needs_lab
from tests.lab.openstack.lab import Lab
from tests.lab.openstack.tenant import Tenant, checked
from tests.openstack.guest import Guest, on_each_back_end
from tests.openstack.service import Stillframe, User, holdings, own_user

pytestmark = [pytest.mark.openstack, needs_lab]


@on_each_back_end
def test_a_server_goes_back_to_any_of_its_snapshots_and_keeps_its_volumes(
    lab: Lab, tenant: Tenant, guest: Guest, user: User
) -> None:
    before, attached = holdings(lab, tenant), guest.attachments()
    taken = {}
    for text in ("A", "B", "C"):
        # Of two snapshots of the same second nobody could tell which is the newest.
        time.sleep(1.1)
        guest.write(text)
        shown = user.create(guest.id)
        assert (shown["status"], set(shown["snapshots"])) == ("available", set(guest.volumes)), shown
        taken[text] = shown["id"]
    guest.write("now")
    for text in ("A", "C", "B"):
        shown = user.restore(guest.id, taken[text])
        way = "revert" if text == "C" else "reimage"
        assert user.progress(shown["task_uri"])["plan"] == dict.fromkeys(guest.volumes, way)
        assert (shown["status"], shown["fault"]) == ("available", None)
        assert guest.read() == [text] * 3
        assert guest.is_whole()
        assert guest.attachments() == attached
    for text in ("B", "A", "C"):
        user.delete(taken[text])
    assert holdings(lab, tenant) == before


@on_each_back_end
def test_a_restore_that_fails_for_one_volume_is_retried(lab: Lab, tenant: Tenant, guest: Guest, user: User) -> None:
    before = holdings(lab, tenant)
    guest.write("then")
    made = user.create(guest.id)
    snapshot_id = made["id"]
    guest.write("now")
    with guest.failing_once(1, made):
        shown = user.restore(guest.id, snapshot_id)
    assert shown["status"] == "restore-error"
    assert set(shown["failed_snapshots"]) == {guest.volumes[1]}
    assert set(shown["temp_snapshots"]) == set(guest.volumes)
    assert guest.read() == ["then", "now", "then"]
    # Nobody can start what is half one thing and half another.
    assert tenant.act(guest.id, "os-start").status_code == 409
    shown = user.restore(guest.id, snapshot_id, retry=True)
    assert (shown["status"], shown["failed_snapshots"], shown["temp_snapshots"]) == ("available", None, None)
    assert guest.read() == ["then"] * 3
    assert guest.is_whole()
    user.delete(snapshot_id)
    assert holdings(lab, tenant) == before


@on_each_back_end
def test_a_restore_that_fails_is_rolled_back(lab: Lab, tenant: Tenant, guest: Guest, user: User) -> None:
    before = holdings(lab, tenant)
    guest.write("then")
    made = user.create(guest.id)
    snapshot_id = made["id"]
    guest.write("now")
    with guest.failing_once(2, made):
        assert user.restore(guest.id, snapshot_id)["status"] == "restore-error"
    shown = user.restore(guest.id, snapshot_id, rollback=True)
    assert (shown["status"], shown["failed_snapshots"], shown["temp_snapshots"]) == ("available", None, None)
    assert guest.read() == ["now"] * 3
    assert guest.is_whole()
    user.delete(snapshot_id)
    assert holdings(lab, tenant) == before


def test_cinder_copies_where_the_driver_cannot_revert(lab: Lab, tenant: Tenant, guest: Guest, user: User) -> None:
    before, attached = holdings(lab, tenant), guest.attachments()
    guest.write("then")
    snapshot_id = user.create(guest.id)["id"]
    guest.write("now")
    for volume in guest.volumes:
        lab.order_fault("revert_to_snapshot", target=volume, action="lack", times=1)
    shown = user.restore(guest.id, snapshot_id)
    assert (shown["status"], shown["fault"]) == ("available", None)
    assert [order["times"] for order in lab.faults()] == [0] * 3
    assert guest.read() == ["then"] * 3
    assert guest.is_whole()
    assert guest.attachments() == attached
    user.delete(snapshot_id)
    assert holdings(lab, tenant) == before


def test_volumes_of_a_consistent_group_are_cut_at_one_instant(lab: Lab, tenant: Tenant, user: User) -> None:
    before = holdings(lab, tenant)
    kind, volume_type = lab.group_type_id, lab.volume_types["rawfile-group"]
    body = {"group": {"name": "g", "group_type": kind, "volume_types": [volume_type]}}
    group_id = checked(tenant.volume.post("/groups", json=body), 202)["group"]["id"]
    tenant.wait("groups", group_id, "available")
    volumes = [tenant.create_volume(kind="rawfile-group", group_id=group_id) for _ in range(2)]
    guest = Guest(lab, tenant, tenant.create_server(volumes), volumes)
    guest.write("then")
    shown = user.create(guest.id)
    consistency = shown["consistency"]
    assert (shown["status"], consistency["level"], consistency["cut_window_ms"]) == ("available", "crash", 0.0)
    members = [checked(tenant.volume.get(f"/snapshots/{one}"))["snapshot"] for one in shown["snapshots"].values()]
    assert len({one["group_snapshot_id"] for one in members}) == 1
    guest.write("now")
    assert user.restore(guest.id, shown["id"])["status"] == "available"
    assert guest.read() == ["then"] * 2
    assert guest.is_whole()
    user.delete(shown["id"])
    tenant.remove_everything()
    assert holdings(lab, tenant) == before


def test_nobody_sees_or_touches_what_is_of_another_project(
    lab: Lab, guest: Guest, service: Stillframe, user: User
) -> None:
    snapshot_id = user.create(guest.id)["id"]
    stranger, reader = (own_user(lab, service, name) for name in ("beta-member", "alpha-reader"))
    for request in (
        {"vm-snapshot": {"name": "mine"}},
        {"vm-restore": {"instance_snapshot_id": snapshot_id, "force": True}},
    ):
        assert stranger.act(guest.id, request).status_code == 404
        assert reader.act(guest.id, request).status_code == 403
    for method, body in (("GET", None), ("DELETE", None), ("PUT", {"instance-snapshot": {"name": "mine"}})):
        assert stranger.snapshots(method, f"/{snapshot_id}", body).status_code == 404
    assert checked(stranger.snapshots())["instance_snapshots"] == []
    assert reader.show(snapshot_id)["name"] == "story"
    assert reader.snapshots("DELETE", f"/{snapshot_id}").status_code == 403
    administrator = own_user(lab, service, "beta-admin")
    assert administrator.show(snapshot_id)["project_id"] == user.project_id
    assert user.show(snapshot_id)["status"] == "available"
    assert guest.server()["status"] == "ACTIVE"
    user.delete(snapshot_id)


def test_what_cannot_be_restored_is_refused_and_left_alone(lab: Lab, tenant: Tenant, guest: Guest, user: User) -> None:
    snapshot_id = user.create(guest.id)["id"]
    restore = {"vm-restore": {"instance_snapshot_id": snapshot_id, "force": True}}
    before = holdings(lab, tenant)
    # It runs.
    refused = user.act(guest.id, {"vm-restore": {"instance_snapshot_id": snapshot_id}})
    assert (refused.status_code, "force" in refused.text) == (400, True)
    checked(tenant.act(guest.id, "lock"), 202)
    refused = user.act(guest.id, restore)
    assert (refused.status_code, "locked" in refused.text) == (409, True)
    checked(tenant.act(guest.id, "unlock"), 202)
    tenant.reset(guest.volumes[1], "error_extending")
    refused = user.act(guest.id, restore)
    assert (refused.status_code, guest.volumes[1] in refused.text) == (400, True)
    refused = user.act(guest.id, {"vm-snapshot": {"name": "no"}})
    assert (refused.status_code, guest.volumes[1] in refused.text) == (400, True)
    tenant.reset(guest.volumes[1], "in-use")
    extended = tenant.compute.post(f"/servers/{guest.id}/action", json={"os-stop": None})
    checked(extended, 202)
    tenant.wait_server(guest.id, "SHUTOFF")
    checked(tenant.volume.post(f"/volumes/{guest.volumes[2]}/action", json={"os-extend": {"new_size": 2}}))
    tenant.wait_volume(guest.volumes[2], "in-use")
    refused = user.act(guest.id, restore)
    assert (refused.status_code, "shrink" in refused.text) == (400, True)
    assert {**holdings(lab, tenant), "totalGigabytesUsed": 0} == {**before, "totalGigabytesUsed": 0}
    assert not guest.server()["locked"]
    assert user.show(snapshot_id)["status"] == "available"
    user.delete(snapshot_id)
