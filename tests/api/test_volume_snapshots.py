"""The ids in an instance snapshot's maps, looked up as clients of Cinder do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillframe.domain.errors import BackendError, Unavailable
from tests.api.running import SIZE

if TYPE_CHECKING:
    from stillframe.domain.instance import Instance
    from tests.api.running import Running


def listed(api: Running, instance: Instance, detail: str = "/detail", **query: object) -> list[dict[str, Any]]:
    reply = api.call("GET", f"/volume/v3/{instance.project_id}/snapshots{detail}", params=query)
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["snapshots"]
    return found


def test_each_id_of_the_maps_leads_to_a_volume_snapshot(api: Running) -> None:
    instance = api.instance()
    snapshot_id = api.snapshot(instance, "nightly")
    snapshots = api.show(instance, snapshot_id)["snapshots"]
    assert len(snapshots) == 2
    for volume_id, copy_id in snapshots.items():
        path = f"/volume/v3/{instance.project_id}/snapshots/{copy_id}"
        shown = api.call("GET", path).json()["snapshot"]
        assert (shown["id"], shown["volume_id"], shown["name"]) == (copy_id, volume_id, "nightly")
        assert (shown["status"], shown["size"], shown["stillframe:size_bytes"]) == ("available", 1, SIZE)
        assert shown["metadata"] == {"instance_snapshot_id": snapshot_id, "kind": "snapshot"}
        assert shown["os-extended-snapshot-attributes:project_id"] == instance.project_id
        assert shown["os-extended-snapshot-attributes:progress"] == "100%"
        assert shown in listed(api, instance)
        assert listed(api, instance, "", volume_id=volume_id) == [shown]
    assert {one["id"] for one in listed(api, instance)} == {*snapshots.values()}


def test_safety_copies_are_among_them_while_they_are_there(api: Running) -> None:
    instance = api.instance()
    snapshot_id = api.snapshot(instance)
    api.faults.fail("restore", BackendError("broken by the test"), instance.volume_ids[1])
    api.restore(instance, snapshot_id)
    api.faults.mend("restore", instance.volume_ids[1])
    safety = api.show(instance, snapshot_id)["temp_snapshots"]
    kinds = {one["id"]: one["metadata"]["kind"] for one in listed(api, instance)}
    assert len(kinds) == 4
    assert {one for one, kind in kinds.items() if kind == "safety"} == {*safety.values()}
    api.restore(instance, snapshot_id, rollback=True)
    assert {one["metadata"]["kind"] for one in listed(api, instance)} == {"snapshot"}


def test_volume_snapshots_are_listed_by_pages_and_filtered_as_in_cinder(api: Running) -> None:
    instance = api.instance()
    for name in ("one", "two"):
        api.snapshot(instance, name)
    whole = listed(api, instance)
    assert [one["name"] for one in whole] == ["two", "two", "one", "one"]
    path = f"/volume/v3/{instance.project_id}/snapshots/detail"
    page = api.call("GET", path, params={"limit": 3}).json()
    assert page["snapshots"] == whole[:3]
    ((rest),) = [link["href"] for link in page["snapshots_links"] if link["rel"] == "next"]
    assert api.call("GET", rest).json() == {"snapshots": whole[3:]}
    assert listed(api, instance, name="one") == whole[2:]
    assert listed(api, instance, status="available") == whole
    assert listed(api, instance, status="error") == []
    assert listed(api, instance, deleted="False") == whole
    assert api.call("GET", path, params={"marker": "nothing"}).status_code == 400


def test_those_of_other_projects_are_not_there(api: Running) -> None:
    instance = api.instance()
    copy_id, _other = api.show(instance, api.snapshot(instance))["snapshots"].values()
    foreign = api.call("GET", f"/volume/v3/other/snapshots/{copy_id}")
    unknown = api.call("GET", "/volume/v3/other/snapshots/nothing")
    assert (foreign.status_code, unknown.status_code) == (404, 404)
    assert foreign.text.replace(copy_id, "nothing") == unknown.text
    # What stands for other signs in patterns of databases is only itself.
    assert api.call("GET", f"/volume/v3/{instance.project_id}/snapshots/{copy_id[:-1]}_").status_code == 404
    assert api.call("GET", "/volume/v3/other/snapshots").json() == {"snapshots": []}
    assert api.call("GET", "/volume/v3/other/snapshots", params={"all_tenants": "1"}).status_code == 403
    admin = {"X-Auth-Token": "admin:other"}
    everything = api.call("GET", "/volume/v3/other/snapshots", params={"all_tenants": "1"}, headers=admin).json()
    assert copy_id in [one["id"] for one in everything["snapshots"]]
    assert api.call("GET", f"/volume/v3/other/snapshots/{copy_id}", headers=admin).status_code == 200


def test_a_back_end_that_is_down_leaves_the_records_to_be_shown(api: Running) -> None:
    instance = api.instance()
    snapshot_id = api.snapshot(instance)
    api.faults.fail("find", Unavailable("the back end is down"), snapshot_id)
    shown = listed(api, instance)
    api.faults.mend("find", snapshot_id)
    assert [(one["status"], one["size"]) for one in shown] == [("available", None)] * 2


def test_one_that_the_back_end_has_lost_is_in_error(api: Running) -> None:
    instance = api.instance()
    copy_id, other = api.show(instance, api.snapshot(instance))["snapshots"].values()
    with api.world.lock:
        del api.world.copies[copy_id]
    assert {one["id"]: one["status"] for one in listed(api, instance)} == {copy_id: "error", other: "available"}
