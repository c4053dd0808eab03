"""An instance of two files, a vdisk of each of two arrays and a volume in memory, by the HTTP API and by the bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stillframe.drivers.memory import MemoryDriver
from stillframe.drivers.platform import Drivers
from stillframe.drivers.storage import PartOnly
from stillframe.drivers.storage_virtualize import naming
from stillframe.settings import load
from tests.lab.storage_virtualize.server import SimulatedArray
from tests.several.stage import FILES, INSTANCE, PROJECT, SIZE, VDISKS, Volumes, joined, make, parts
from tests.storage_virtualize.running import Service, running


@dataclass
class Story:
    service: Service
    volumes: Volumes
    drivers: Drivers

    def copies(self) -> list[tuple[str | None, str]]:
        """The driver of each copy, and its volume's device."""
        devices = {volume_id: device for device, volume_id in self.service.volumes.items()}
        return sorted((one.driver, devices[one.name.volume_id]) for one in self.drivers.storage.find(None))


@pytest.fixture
def story(tmp_path: Path, arrays: dict[str, SimulatedArray]) -> Iterator[Story]:
    config = make(tmp_path, arrays)
    memory = MemoryDriver()
    memory.add_instance(PROJECT, "elsewhere", [SIZE])
    drivers = joined(*parts(load([str(config)])), memory)
    with running(config, arrays["a"], INSTANCE, drivers) as service:
        yield Story(service, Volumes(tmp_path, arrays, memory), drivers)


#: A copy of each volume, by the names of the drivers.
ONE_OF_EACH = sorted(
    [
        *(("files", name) for name in FILES),
        *(("storage_virtualize", name) for name in VDISKS),
        ("memory", "memory"),
    ]
)


def b_fails(story: Story) -> None:
    """Let the second array refuse to start any mapping back to its volume."""
    reverse = f"{naming.REVERSE}{naming.write(story.service.volumes['b-log'])}*"
    story.volumes.arrays["b"].faults.put("startfcmap", "fail", times=100, code="CMMVC5907E", subject=reverse)


def test_all_volumes_are_cut_together_and_put_back(story: Story) -> None:
    story.volumes.write("1")
    snapshot_id = story.service.snapshot("kept")
    shown = story.service.show(snapshot_id)
    assert shown["snapshots"].keys() == {*story.service.volumes.values()}
    assert shown["consistency"]["level"] == "crash"
    assert shown["consistency"]["cut_window_ms"] > 0
    assert story.copies() == ONE_OF_EACH
    story.volumes.write("2")
    shown = story.service.restore(snapshot_id)
    assert (shown["status"], shown["fault"], shown["temp_snapshots"]) == ("available", None, None)
    assert story.volumes.read() == story.volumes.all("1")
    assert story.copies() == ONE_OF_EACH
    story.service.delete(snapshot_id)
    assert story.copies() == []


def test_the_volumes_of_all_drivers_are_listed_once(story: Story) -> None:
    listed = story.service.call("GET", f"/volume/v3/{PROJECT}/volumes/detail").json()["volumes"]
    assert {one["id"] for one in listed} == {*story.service.volumes.values()}
    for volume_id in story.service.volumes.values():
        reply = story.service.call("GET", f"/volume/v3/{PROJECT}/volumes/{volume_id}")
        assert reply.json()["volume"]["id"] == volume_id
    assert story.service.call("GET", f"/volume/v3/{PROJECT}/volumes/{INSTANCE}").status_code == 404


def test_only_a_vdisk_has_flashcopy_mappings(story: Story) -> None:
    assert story.service.check("a-log").json()["copy_details"] == []
    assert "not on IBM Storage Virtualize" in story.service.check("data").json()["badRequest"]["message"]


def test_what_failed_for_one_driver_is_put_back_by_a_retry(story: Story) -> None:
    story.volumes.write("1")
    snapshot_id = story.service.snapshot("kept")
    story.volumes.write("2")
    b_fails(story)
    shown = story.service.restore(snapshot_id)
    assert (shown["status"], [*shown["failed_snapshots"]]) == ("restore-error", [story.service.volumes["b-log"]])
    assert story.volumes.read() == {**story.volumes.all("1"), "b-log": "2"}
    story.volumes.arrays["b"].faults.clear()
    shown = story.service.restore(snapshot_id, retry=True)
    assert (shown["status"], shown["failed_snapshots"], shown["temp_snapshots"]) == ("available", None, None)
    assert story.volumes.read() == story.volumes.all("1")
    assert story.copies() == ONE_OF_EACH


def test_a_restore_that_failed_for_one_driver_is_rolled_back_in_all(story: Story) -> None:
    story.volumes.write("1")
    snapshot_id = story.service.snapshot("kept")
    story.volumes.write("2")
    b_fails(story)
    assert story.service.restore(snapshot_id)["status"] == "restore-error"
    story.volumes.arrays["b"].faults.clear()
    shown = story.service.restore(snapshot_id, rollback=True)
    assert (shown["status"], shown["failed_snapshots"], shown["temp_snapshots"]) == ("available", None, None)
    assert story.volumes.read() == story.volumes.all("2")
    assert story.copies() == ONE_OF_EACH


def begun(story: Story) -> dict[str, Any]:
    """A snapshot that is asked for, as it is in the end."""
    made = story.service.act({"vm-snapshot": {"name": "kept", "description": ""}})["instance_snapshot"]
    story.service.wait(made["task_uri"])
    return story.service.show(made["id"])


def test_a_cut_that_one_driver_fails_leaves_no_copy_with_any(story: Story) -> None:
    story.volumes.arrays["b"].faults.put("startfcconsistgrp", "fail", times=100, code="CMMVC5907E")
    shown = begun(story)
    assert (shown["status"], shown["snapshots"]) == ("error", None)
    assert "CMMVC5907E" in shown["fault"]["message"]
    assert story.copies() == []


def test_a_cut_whose_outcome_one_driver_does_not_know_is_made_anew_by_all(story: Story) -> None:
    story.volumes.write("1")
    story.volumes.arrays["b"].faults.put("startfcconsistgrp", "lose")
    shown = begun(story)
    assert shown["status"] == "available"
    assert story.copies() == ONE_OF_EACH
    story.volumes.write("2")
    story.service.restore(shown["id"])
    assert story.volumes.read() == story.volumes.all("1")


def test_nothing_is_said_to_be_gone_of_an_array_that_is_away(story: Story) -> None:
    snapshot_id = story.service.snapshot("kept")
    story.volumes.arrays["b"].faults.unreachable(3600)
    for instance_id in (None, INSTANCE):
        with pytest.raises(PartOnly) as told:
            story.drivers.storage.find(snapshot_id, instance_id)
        assert {one.driver for one in told.value.found} == {"files", "memory", "storage_virtualize"}
