"""The ten operations, each told from a client's side to its end."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

import pytest

from stillframe.domain.errors import BackendError
from stillframe.domain.instance import PowerState
from tests.api.running import SIZE, Mappings

if TYPE_CHECKING:
    from stillframe.domain.instance import Instance
    from tests.api.running import Running

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}")
OBJECT = {
    "id", "name", "description", "status", "instance_id", "created_at", "updated_at", "task_uri", "snapshots",
    "temp_snapshots", "failed_snapshots", "project_id", "user_id", "fault", "consistency",
    "minimum_consistency", "guest_may_be_held", "not_included",
}  # fmt: skip


def test_a_snapshot_is_taken_of_every_attached_volume(api: Running) -> None:
    instance = api.instance(volumes=3)
    reply = api.act(instance, {"vm-snapshot": {"name": "before", "description": "the upgrade"}})
    assert reply.status_code == 200
    assert reply.json().keys() == {"instance_snapshot"}
    assert reply.json()["instance_snapshot"].keys() == {"task_uri", "id"}
    details = api.wait(reply.json()["instance_snapshot"]["task_uri"])
    assert details["progress"] == 100
    assert details["flow_details"] == {"InstSnapshotFlow": "SUCCESS"}
    assert details["completed_tasks"].keys() == {"creating_snapshot", "updating_snapshots", "SnapshotDone"}
    assert details["pending_tasks"] == {}
    shown = api.show(instance, reply.json()["instance_snapshot"]["id"])
    assert shown["snapshots"].keys() == set(instance.volume_ids)


def test_the_object_has_its_keys_and_its_form_of_time(api: Running) -> None:
    instance = api.instance()
    shown = api.show(instance, api.snapshot(instance, description="why"))
    assert shown.keys() == OBJECT
    assert (shown["name"], shown["description"], shown["status"]) == ("before", "why", "available")
    assert (shown["instance_id"], shown["project_id"]) == (instance.id, instance.project_id)
    assert TIME.fullmatch(shown["created_at"])
    # The end of its creation is its first change.
    assert TIME.fullmatch(shown["updated_at"])
    assert shown["updated_at"] > shown["created_at"]
    assert shown["temp_snapshots"] is shown["failed_snapshots"] is shown["fault"] is None
    assert shown["consistency"].keys() == {"level", "cut_window_ms", "reason"}
    assert api.call("GET", shown["task_uri"]).json()["details"]["progress"] == 100


def test_a_snapshot_of_some_volumes_leaves_the_others_out_and_minds_no_duplicates(api: Running) -> None:
    instance = api.instance(volumes=3)
    wanted = instance.volume_ids[1]
    shown = api.show(instance, api.snapshot(instance, volumes=[wanted, wanted]))
    assert shown["snapshots"].keys() == {wanted}


@pytest.mark.parametrize("volumes", [[], None])
def test_no_volumes_named_means_all(api: Running, volumes: list[str] | None) -> None:
    instance = api.instance()
    shown = api.show(instance, api.snapshot(instance, volumes=volumes))
    assert shown["snapshots"].keys() == set(instance.volume_ids)


def test_a_change_of_name_or_description_changes_nothing_else(api: Running) -> None:
    instance = api.instance()
    before = api.show(instance, snapshot_id := api.snapshot(instance, description="old"))
    path = f"/volume/v3/{instance.project_id}/instance-snapshots/{snapshot_id}"
    reply = api.call("PUT", path, json={"instance-snapshot": {"name": "after"}})
    assert (reply.status_code, reply.json()) == (200, {"instance_snapshot": {"id": snapshot_id}})
    assert api.call("PUT", path, json={"instance_snapshot": {"description": None}}).status_code == 200
    after = api.show(instance, snapshot_id)
    assert TIME.fullmatch(after["updated_at"])
    assert {**before, "name": "after", "description": "", "updated_at": after["updated_at"]} == after


def test_a_restore_brings_back_what_was_there(api: Running) -> None:
    instance = api.instance()
    fill(api, instance, b"old")
    snapshot_id = api.snapshot(instance)
    fill(api, instance, b"new")
    newer = api.snapshot(instance, "newer")
    reply = api.act(instance, {"vm-restore": {"instance_snapshot_id": snapshot_id}})
    assert reply.status_code == 202
    assert reply.json().keys() == {"task_uri"}
    assert "action=restore&" in reply.json()["task_uri"]
    assert api.wait(reply.json()["task_uri"])["progress"] == 100
    assert beginnings(api, instance) == [b"old", b"old"]
    shown = api.show(instance, snapshot_id)
    assert (shown["status"], shown["temp_snapshots"], shown["failed_snapshots"]) == ("available", None, None)
    assert api.show(instance, newer)["status"] == "available"
    api.restore(instance, newer)
    assert beginnings(api, instance) == [b"new", b"new"]


def test_force_shuts_a_running_instance_down_and_starts_it_again(api: Running) -> None:
    instance = api.instance(power_state=PowerState.ACTIVE)
    snapshot_id = api.snapshot(instance)
    refused = api.act(instance, {"vm-restore": {"instance_snapshot_id": snapshot_id}})
    assert (refused.status_code, "force" in refused.json()["badRequest"]["message"]) == (400, True)
    api.restore(instance, snapshot_id, force=True)
    assert api.world.instances[instance.id].power_state is PowerState.ACTIVE


def test_a_failed_restore_is_retried_for_the_failed_volumes_only(api: Running) -> None:
    instance, snapshot_id = half_restored(api)
    shown = api.show(instance, snapshot_id)
    assert shown["status"] == "restore-error"
    assert shown["failed_snapshots"].keys() == {instance.volume_ids[0]}
    assert shown["temp_snapshots"].keys() == set(instance.volume_ids)
    assert shown["fault"].keys() == {"code", "message", "created_at"}
    assert TIME.fullmatch(shown["fault"]["created_at"])
    api.world.write(instance.volume_ids[1], 0, b"own")
    assert api.restore(instance, snapshot_id, retry="True")["progress"] == 100
    assert beginnings(api, instance) == [b"old", b"own"]
    after = api.show(instance, snapshot_id)
    assert (after["status"], after["temp_snapshots"], after["failed_snapshots"]) == ("available", None, None)


def test_a_failed_restore_is_rolled_back_for_every_volume(api: Running) -> None:
    instance, snapshot_id = half_restored(api)
    reply = api.act(instance, {"vm_restore": {"instance_snapshot_id": snapshot_id, "rollback": True}})
    assert "action=restore-rollback&" in reply.json()["task_uri"]
    api.wait(reply.json()["task_uri"])
    assert beginnings(api, instance) == [b"new", b"new"]
    after = api.show(instance, snapshot_id)
    assert (after["status"], after["temp_snapshots"], after["failed_snapshots"]) == ("available", None, None)


def test_a_half_restored_instance_cannot_be_started(api: Running) -> None:
    instance, snapshot_id = half_restored(api)
    reply = api.act(instance, {"os-start": None})
    assert reply.status_code == 409
    assert snapshot_id in reply.json()["conflictingRequest"]["message"]


def test_a_deleted_snapshot_is_gone_and_its_task_can_still_be_watched(api: Running) -> None:
    instance = api.instance()
    snapshot_id = api.snapshot(instance)
    path = f"/volume/v3/{instance.project_id}/instance-snapshots/{snapshot_id}"
    reply = api.call("DELETE", path)
    assert reply.status_code == 200
    assert reply.json().keys() == {"task_uri"}
    assert api.wait(reply.json()["task_uri"])["progress"] == 100
    assert api.call("GET", path).status_code == 404
    assert api.call("DELETE", path).status_code == 404
    assert not [copy for copy in api.world.copies.values() if copy.name.snapshot_id == snapshot_id]


def test_two_operations_on_one_instance_exclude_each_other(api: Running) -> None:
    instance = api.instance()
    snapshot_id = api.snapshot(instance)
    with api.faults.holding("complete"):
        running = api.act(instance, {"vm-snapshot": {"name": "first"}})
        assert running.status_code == 200
        task_uri = running.json()["instance_snapshot"]["task_uri"]
        second = api.act(instance, {"vm-snapshot": {"name": "second"}})
        assert (second.status_code, [*second.json()]) == (409, ["conflictingRequest"])
        restore = api.act(instance, {"vm-restore": {"instance_snapshot_id": snapshot_id}})
        assert restore.status_code == 409
        creating = running.json()["instance_snapshot"]["id"]
        path = f"/volume/v3/{instance.project_id}/instance-snapshots/{creating}"
        assert api.show(instance, creating)["status"] == "creating"
        assert api.call("DELETE", path).status_code == 409
        assert api.call("GET", task_uri).json()["details"]["progress"] < 100
    api.wait(task_uri)


def test_the_mappings_of_a_volume_on_an_array_are_shown(api: Running) -> None:
    assert isinstance(api.flashcopy, Mappings)
    instance = api.instance()
    volume_id = instance.volume_ids[0]
    api.flashcopy.of_volume[volume_id] = [{"name": "fcmap0", "progress": "100", "copyrate": "50"}]
    path = f"/volume/v3/{instance.project_id}/volumes/{volume_id}/action"
    plain = api.call("POST", path, json={"copy-progress": {"details": False}})
    assert plain.status_code == 202
    assert plain.json() == {"copy_details": [{"name": "fcmap0", "progress": "100", "copyrate": None}]}
    full = api.call("POST", path, json={"copy_progress": {"details": "true"}})
    assert full.json()["copy_details"][0]["copyrate"] == "50"


def test_a_task_is_found_only_by_all_of_its_parts(api: Running) -> None:
    instance = api.instance()
    snapshot_id, other = api.snapshot(instance), api.snapshot(instance)
    task_uri = api.show(instance, snapshot_id)["task_uri"]
    task_id = re.search("task_id=([^&]+)", task_uri)
    assert task_id
    for wrong in (
        task_uri.replace("action=snapshot", "action=delete"),
        task_uri.replace("action=snapshot", "action=nonsense"),
        task_uri.replace(snapshot_id, other),
        task_uri.replace(task_id[1], str(uuid.uuid4())),
        task_uri.replace(instance.project_id, "another-project"),
    ):
        reply = api.call("GET", wrong)
        assert (reply.status_code, [*reply.json()]) == (404, ["itemNotFound"]), wrong


def fill(api: Running, instance: Instance, data: bytes) -> None:
    for volume_id in instance.volume_ids:
        api.world.write(volume_id, 0, data)


def beginnings(api: Running, instance: Instance) -> list[bytes]:
    return [api.world.read(volume_id, 0, 3) for volume_id in instance.volume_ids]


def half_restored(api: Running) -> tuple[Instance, str]:
    """An instance whose first volume could not be restored from "old", where all had been changed to "new"."""
    instance = api.instance(volumes=2)
    assert len(api.world.contents[instance.volume_ids[0]]) == SIZE
    fill(api, instance, b"old")
    snapshot_id = api.snapshot(instance)
    fill(api, instance, b"new")
    fault = ("restore", instance.volume_ids[0])
    api.faults.fail(fault[0], BackendError("the array said no"), fault[1])
    assert api.restore(instance, snapshot_id)["progress"] < 100
    api.faults.mend(*fault)
    return instance, snapshot_id
