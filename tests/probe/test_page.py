"""The ten operations of IBM's page, asked for by a client that knows the page alone."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from stillframe.domain.errors import BackendError
from stillframe.domain.instance import PowerState
from tests.probe.page import Page, fault

if TYPE_CHECKING:
    from stillframe.domain.instance import Instance
    from tests.api.running import Running

BROKEN = "the disk is broken, says the test"


@pytest.fixture
def instance(api: Running) -> Instance:
    return api.instance(power_state=PowerState.ACTIVE)


@pytest.fixture
def page(api: Running, instance: Instance) -> Page:
    return Page(api.url, instance.project_id)


def test_a_snapshot_is_created_listed_shown_updated_and_deleted(page: Page, instance: Instance) -> None:
    assert page.list_all() == []
    snapshot_id, task_uri = page.create(instance.id, name="first", description="by the page")
    assert page.show(snapshot_id)["status"] in ("creating", "available")
    end = page.end_of(task_uri)
    assert (end.good, end.percents[-1]) == (True, 100)
    shown = page.show(snapshot_id)
    assert (shown["name"], shown["description"], shown["status"]) == ("first", "by the page", "available")
    assert shown["snapshots"].keys() == {*instance.volume_ids}
    assert (shown["temp_snapshots"], shown["failed_snapshots"], shown["instance_id"]) == (None, None, instance.id)
    one, task_uri = page.create(instance.id, name="second", description="", volumes=[instance.volume_ids[1]])
    assert page.end_of(task_uri).good
    assert page.show(one)["snapshots"].keys() == {instance.volume_ids[1]}
    page.update(snapshot_id, name="changed")
    page.update(snapshot_id, description="changed too")
    assert {(found["id"], found["name"]) for found in page.list_all()} == {(snapshot_id, "changed"), (one, "second")}
    for gone in (snapshot_id, one):
        assert page.end_of(page.delete(gone)).good
        status, document = page.ask("GET", f"/volume/v3/{page.project_id}/instance-snapshots/{gone}")
        assert (status, gone in fault(404, document, "itemNotFound")) == (404, True)
    assert page.list_all() == []


def test_a_restore_goes_to_any_snapshot_and_asks_for_force(api: Running, page: Page, instance: Instance) -> None:
    first, task_uri = page.create(instance.id, name="first", description="")
    assert page.end_of(task_uri).good
    api.world.write(instance.volume_ids[0], 0, b"later")
    second, task_uri = page.create(instance.id, name="second", description="")
    assert page.end_of(task_uri).good
    status, document = page.try_restore(instance.id, first)
    assert (status, "force" in fault(400, document, "badRequest")) == (400, True)
    assert page.end_of(page.restore(instance.id, first, force=True)).good
    assert api.world.read(instance.volume_ids[0], 0, 5) == bytes(5)
    assert page.end_of(page.restore(instance.id, second, force="True")).good
    assert api.world.read(instance.volume_ids[0], 0, 5) == b"later"
    assert api.world.instances[instance.id].power_state is PowerState.ACTIVE
    assert {found["status"] for found in page.list_all()} == {"available"}


def test_a_create_that_fails_says_so_by_its_task_alone(api: Running, page: Page, instance: Instance) -> None:
    # The guest cannot be held still.
    api.faults.fail("quiesced", BackendError(BROKEN), instance.id)
    snapshot_id, task_uri = page.create(instance.id, name="first", description="")
    end = page.end_of(task_uri)
    api.faults.mend("quiesced", instance.id)
    assert (end.good, BROKEN in (end.why or "")) == (False, True)
    assert page.show(snapshot_id)["status"] == "error"
    assert page.show(snapshot_id)["snapshots"] is None


def test_a_retry_and_a_rollback_follow_a_restore_that_failed(api: Running, page: Page, instance: Instance) -> None:
    first, second = instance.volume_ids
    snapshot_id, task_uri = page.create(instance.id, name="first", description="")
    assert page.end_of(task_uri).good
    api.world.write(first, 0, b"later")
    for way in ("retry", "rollback"):
        status, document = page.try_restore(instance.id, snapshot_id, force=True, **{way: True})
        assert (status, "restore-error" in fault(400, document, "badRequest")) == (400, True)
    status, document = page.try_restore(instance.id, snapshot_id, retry=True, rollback=True)
    assert (status, bool(fault(400, document, "badRequest"))) == (400, True)

    def fail() -> None:
        api.faults.fail("restore", BackendError(BROKEN), second)
        end = page.end_of(page.restore(instance.id, snapshot_id, force=True))
        api.faults.mend("restore", second)
        assert (end.good, BROKEN in (end.why or "")) == (False, True)
        shown = page.show(snapshot_id)
        assert shown["status"] == "restore-error"
        assert (shown["failed_snapshots"].keys(), shown["temp_snapshots"].keys()) == ({second}, {first, second})

    fail()
    assert page.end_of(page.restore(instance.id, snapshot_id, rollback=True)).good
    assert api.world.read(first, 0, 5) == b"later"
    shown = page.show(snapshot_id)
    assert (shown["status"], shown["failed_snapshots"], shown["temp_snapshots"]) == ("available", None, None)
    fail()
    assert page.end_of(page.restore(instance.id, snapshot_id, retry="true", force="false")).good
    assert api.world.read(first, 0, 5) == bytes(5)
    shown = page.show(snapshot_id)
    assert (shown["status"], shown["failed_snapshots"], shown["temp_snapshots"]) == ("available", None, None)


def test_the_progress_of_a_task_that_nobody_knows_is_not_found(page: Page, instance: Instance) -> None:
    snapshot_id, task_uri = page.create(instance.id, name="first", description="")
    assert page.end_of(task_uri).good
    for uri in (
        task_uri.replace("action=snapshot", "action=restore"),
        task_uri.replace("action=snapshot", "action=nothing"),
        task_uri.replace(snapshot_id, str(uuid.uuid4())),
        task_uri.partition("task_id=")[0] + f"task_id={uuid.uuid4()}&id={snapshot_id}",
    ):
        status, document = page.ask("GET", uri)
        assert (status, bool(fault(404, document, "itemNotFound"))) == (404, True)


def test_the_flashcopy_check_shows_the_mappings_of_a_volume(api: Running, page: Page, instance: Instance) -> None:
    assert api.flashcopy is not None
    mapping: dict[str, str | None] = {
        "name": "fcmap0",
        "status": "copying",
        "source_vdisk_name": "source",
        "target_vdisk_name": "target",
        "progress": "40",
        "incremental": "off",
        "restoring": "no",
        "restore_progress": None,
        "copyrate": "50",
    }
    on_array, elsewhere = instance.volume_ids
    api.flashcopy.of_volume[on_array] = [mapping]
    (shown,) = page.copy_progress(on_array, details=False)
    assert (shown["name"], shown["progress"]) == ("fcmap0", "40")
    assert page.copy_progress(on_array, details=True)[0]["copyrate"] == "50"
    api.flashcopy.of_volume[on_array] = []
    assert page.copy_progress(on_array, details=False) == []
    path = f"/volume/v3/{page.project_id}/volumes/{elsewhere}/action"
    status, document = page.ask("POST", path, {"copy-progress": {"details": False}})
    assert (status, "not on" in fault(400, document, "badRequest")) == (400, True)
