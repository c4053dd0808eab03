"""What a user of the API sees with volumes on an array; every story is checked by the bytes on the array."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillframe.drivers.memory import MemoryDriver
from stillframe.drivers.platform import Drivers, Offer
from stillframe.drivers.storage_virtualize import naming
from stillframe.drivers.storage_virtualize.platform import StorageVirtualizePlatform
from stillframe.settings import load
from tests.lab.storage_virtualize.array import Array
from tests.lab.storage_virtualize.objects import GRAIN, Behaviour
from tests.lab.storage_virtualize.server import SimulatedArray, simulated
from tests.storage_virtualize.running import PROJECT, SIZE, Service, configured, declare, running

KEYS = {
    "name", "status", "source_vdisk_name", "target_vdisk_name", "progress", "incremental", "restoring",
    "restore_progress", "copyrate",
}  # fmt: skip

DETAILS = {
    "id", "source_vdisk_id", "target_vdisk_id", "group_id", "group_name", "copy_rate", "start_time", "autodelete",
    "dependent_mappings", "clean_progress", "clean_rate", "difference", "grain_size", "IO_group_id", "IO_group_name",
    "partner_FC_id", "partner_FC_name", "rc_controlled", "keep_target", "type", "fc_controlled", "owner_id",
    "owner_name", "owner_type",
}  # fmt: skip


@pytest.fixture
def served(tmp_path: Path) -> Iterator[SimulatedArray]:
    with simulated(tmp_path, Array(behaviour=Behaviour(speed=1e5))) as served:
        yield served


@pytest.fixture
def service(tmp_path: Path, served: SimulatedArray) -> Iterator[Service]:
    declare(tmp_path, served, "disk-a", "disk-b")
    with running(configured(tmp_path, served), served) as service:
        yield service


@pytest.fixture
def story(service: Service) -> tuple[Service, dict[str, str], dict[str, list[bytes]]]:
    """Three snapshots of volumes that change in between."""
    ids, contents = {}, {}
    for grain, name in enumerate(("oldest", "middle", "newest")):
        service.write(name[0], grain)
        ids[name] = service.snapshot(name)
        contents[name] = service.read()
    service.fill("x")
    return service, ids, contents


Story = tuple[Service, dict[str, str], dict[str, list[bytes]]]


def second_fails(service: Service) -> None:
    """Let the array refuse to start any mapping back to the second volume."""
    second = naming.write(service.volumes["disk-b"])
    service.served.faults.put("startfcmap", "fail", times=100, code="CMMVC5907E", subject=f"{naming.REVERSE}{second}*")


def test_any_of_three_snapshots_can_be_restored(story: Story) -> None:
    service, ids, contents = story
    before = service.served.objects()
    for name in ("oldest", "newest", "middle", "oldest"):
        shown = service.restore(ids[name])
        assert (shown["status"], shown["fault"], shown["temp_snapshots"]) == ("available", None, None)
        assert service.read() == contents[name]
        assert service.served.objects() == before


def test_a_snapshot_says_that_all_volumes_were_cut_at_one_instant(story: Story) -> None:
    service, ids, _contents = story
    consistency = service.show(ids["oldest"])["consistency"]
    assert (consistency["level"], consistency["cut_window_ms"]) == ("crash", 0.0)


def test_a_volume_whose_restore_failed_is_restored_by_a_retry(story: Story) -> None:
    service, ids, contents = story
    before, spoilt = service.served.objects(), service.read()
    second_fails(service)
    shown = service.restore(ids["oldest"])
    assert shown["status"] == "restore-error"
    assert [*shown["failed_snapshots"]] == [service.volumes["disk-b"]]
    assert "CMMVC5907E" in shown["fault"]["message"]
    assert service.read() == [contents["oldest"][0], spoilt[1]]
    service.served.faults.clear()
    shown = service.restore(ids["oldest"], retry=True)
    assert (shown["status"], shown["failed_snapshots"]) == ("available", None)
    assert service.read() == contents["oldest"]
    assert service.served.objects() == before


def test_a_restore_that_failed_is_rolled_back(story: Story) -> None:
    service, ids, contents = story
    before, spoilt = service.served.objects(), service.read()
    second_fails(service)
    assert service.restore(ids["middle"])["status"] == "restore-error"
    assert service.read() != spoilt
    service.served.faults.clear()
    shown = service.restore(ids["middle"], rollback=True)
    assert (shown["status"], shown["temp_snapshots"], shown["failed_snapshots"]) == ("available", None, None)
    assert service.read() == spoilt
    assert service.served.objects() == before
    service.restore(ids["middle"])
    assert service.read() == contents["middle"]


@pytest.mark.parametrize(
    ("command", "which"),
    # The first two mappings of a restore are those of the safety copies.
    [("mkfcmap", {"nth": 3}), ("startfcmap", {"subject": f"{naming.REVERSE}*"})],
)
def test_a_restore_of_which_no_byte_was_changed_is_rolled_back_by_an_array_that_refuses_all(
    story: Story, command: str, which: dict[str, object]
) -> None:
    service, ids, contents = story
    before, spoilt = service.served.objects(), service.read()
    service.served.faults.put(command, "fail", times=100, code="CMMVC5907E", **which)
    shown = service.restore(ids["middle"])
    assert shown["status"] == "restore-error"
    assert {*shown["failed_snapshots"]} == {*service.volumes.values()}
    shown = service.restore(ids["middle"], rollback=True)
    assert (shown["status"], shown["fault"], shown["temp_snapshots"]) == ("available", None, None)
    assert service.read() == spoilt
    assert service.served.objects() == before
    service.served.faults.clear()
    service.restore(ids["middle"])
    assert service.read() == contents["middle"]


def test_the_middle_snapshot_is_deleted_while_the_older_one_depends_on_it(story: Story) -> None:
    service, ids, contents = story
    service.delete(ids["middle"])
    assert len(service.served.objects()["vdisks"]) == 6
    for name in ("oldest", "newest"):
        service.restore(ids[name])
        assert service.read() == contents[name]
    for name in ("newest", "oldest"):
        service.delete(ids[name])
    assert service.served.objects() == {
        "vdisks": ["disk-a", "disk-b"], "mappings": [], "groups": [], "snapshots": [],
    }  # fmt: skip


def test_an_expired_token_and_too_many_requests_are_not_noticed(story: Story) -> None:
    service, ids, contents = story
    service.served.array.behaviour.speed = 0.02
    task = service.begin_restore(ids["oldest"])
    while "lsfcmap" not in service.served.faults.commands[-3:] or service.progress(task)["progress"] < 15:
        time.sleep(0.01)
    for _ in range(3):
        service.served.faults.put("ls*", "busy", times=2)
        service.served.tokens.clear()
        time.sleep(0.2)
    service.served.array.behaviour.speed = 1e5
    service.wait(task)
    shown = service.show(ids["oldest"])
    assert (shown["status"], shown["fault"]) == ("available", None)
    assert service.read() == contents["oldest"]


def test_an_array_that_is_unreachable_for_a_while_delays_a_restore(story: Story) -> None:
    service, ids, contents = story
    service.served.array.behaviour.speed = 0.02
    task = service.begin_restore(ids["oldest"])
    while service.progress(task)["progress"] < 15:
        time.sleep(0.01)
    service.served.faults.unreachable(4)
    service.served.array.behaviour.speed = 1e5
    time.sleep(3)
    assert service.show(ids["oldest"])["status"] == "restoring"
    service.wait(task)
    shown = service.show(ids["oldest"])
    assert (shown["status"], shown["fault"]) == ("available", None)
    assert service.read() == contents["oldest"]


def test_an_array_that_is_unreachable_from_the_start_of_an_operation_delays_it(story: Story) -> None:
    service, ids, contents = story
    service.served.faults.put("mkvdisk", "hang", seconds=0.5)
    task = service.begin_restore(ids["newest"])
    service.served.faults.unreachable(3)
    service.wait(task)
    assert service.show(ids["newest"])["status"] == "available"
    assert service.read() == contents["newest"]


def test_progress_moves_with_what_the_array_has_copied(story: Story) -> None:
    service, ids, _contents = story
    # Slow enough for several looks: the service notes progress every half second.
    service.served.array.behaviour.speed = 0.002
    task = service.begin_restore(ids["oldest"])
    seen: list[int] = []
    while len(set(seen)) <= 4:
        seen.append(service.progress(task)["progress"])
        assert seen[-1] < 100, seen
        time.sleep(0.05)
    assert seen == sorted(seen)
    service.served.array.behaviour.speed = 1e5
    service.wait(task)


class TestCheck:
    def test_a_mapping_is_told_key_for_key(self, service: Service) -> None:
        service.write("a")
        snapshot_id = service.snapshot("one")
        copy_id = service.show(snapshot_id)["snapshots"][service.volumes["disk-a"]]
        reply = service.check("disk-a")
        assert reply.status_code == 202
        row = reply.json()["copy_details"][0]
        assert reply.json() == {
            "copy_details": [
                {
                    "name": row["name"],
                    "status": "copying",
                    "source_vdisk_name": "disk-a",
                    "target_vdisk_name": row["target_vdisk_name"],
                    "progress": "0",
                    "incremental": "off",
                    "restoring": "no",
                    "restore_progress": None,
                    "copyrate": None,
                }
            ]
        }
        assert row["target_vdisk_name"].endswith(naming.digest(copy_id))
        assert {*row} == KEYS

    def test_every_column_of_the_array_is_told_with_details(self, service: Service) -> None:
        service.snapshot("one")
        row = service.check("disk-a", details=True).json()["copy_details"][0]
        assert {*row} == KEYS | DETAILS
        assert (row["copyrate"], row["restore_progress"], row["group_name"]) == ("0", "0", "")
        assert all(isinstance(value, str) for value in row.values())

    def test_mappings_come_by_number_and_a_restore_shows_itself(self, story: Story) -> None:
        service, ids, _contents = story
        for number in range(9):
            service.served.array.add_vdisk(f"t{number}", SIZE)
            with service.served.lock:
                array = service.served.array
                array.new_mapping(f"other{number}", array.vdisk("disk-a"), array.vdisk(f"t{number}"))
        service.served.array.behaviour.speed = 0.001
        task = service.begin_restore(ids["oldest"])
        while not any(row["restoring"] == "yes" for row in service.check("disk-a").json()["copy_details"]):
            time.sleep(0.02)
        numbers = [int(row["id"]) for row in service.check("disk-a", details=True).json()["copy_details"]]
        assert numbers == sorted(numbers)
        assert len(numbers) == 3 + 9 + 2
        service.served.array.behaviour.speed = 1e5
        service.wait(task)

    def test_a_volume_without_mappings_has_none(self, service: Service) -> None:
        assert service.check("disk-a").json() == {"copy_details": []}

    def test_a_mapping_that_goes_away_meanwhile_is_left_out(self, service: Service) -> None:
        service.snapshot("one")
        number = str(next(iter(service.served.array.mappings)))
        service.served.faults.put("lsfcmap", "fail", subject=number, code="CMMVC5804E")
        assert service.check("disk-a", details=True).json() == {"copy_details": []}
        assert len(service.check("disk-a", details=True).json()["copy_details"]) == 1

    def test_an_array_that_does_not_answer_is_a_platform_that_is_down(self, service: Service) -> None:
        service.served.faults.unreachable(60)
        reply = service.check("disk-a")
        assert (reply.status_code, [*reply.json()]) == (503, ["serviceUnavailable"])


class TestManagedVolumes:
    """Volumes of a platform that names them on the array as Cinder does; the platform is the one in memory."""

    @pytest.fixture(params=["flashcopy", "snapshots"])
    def managed(self, request: pytest.FixtureRequest, tmp_path: Path, served: SimulatedArray) -> Iterator[Service]:
        served.array.behaviour.code_level = "8.6.2.0 (build 169.4.2311)"
        platform = MemoryDriver()
        instance = platform.add_instance(PROJECT, "vm", [SIZE, SIZE])
        names = {f"volume-{volume_id}": volume_id for volume_id in instance.volume_ids}
        for vdisk in names:
            served.array.add_vdisk(vdisk, SIZE)
        config = configured(tmp_path, served, drivers__compute="memory", copies=request.param)
        beneath = Offer(platform.compute, platform.storage)
        offer = StorageVirtualizePlatform().open(load([str(config)]), [beneath])
        assert offer.storage is not None
        drivers = Drivers(platform.compute, offer.storage, offer.abilities)
        with running(config, served, instance.id, drivers, names) as service:
            yield service

    def test_they_are_snapshotted_and_restored(self, managed: Service) -> None:
        managed.fill("1")
        before = managed.read()
        snapshot_id = managed.snapshot("before")
        managed.fill("2")
        assert managed.restore(snapshot_id)["status"] == "available"
        assert managed.read() == before
        managed.delete(snapshot_id)
        time.sleep(0.05)
        assert managed.served.objects()["mappings"] == []

    def test_their_mappings_are_shown_and_those_that_the_system_owns_too(self, managed: Service) -> None:
        managed.snapshot("one")
        vdisk = next(iter(managed.volumes))
        for details in (False, True):
            rows = managed.check(vdisk, details=details).json()["copy_details"]
            assert len(rows) == 1
            assert (rows[0]["source_vdisk_name"], rows[0]["copyrate"]) == (vdisk, "0" if details else None)

    def test_a_volume_that_is_on_no_array_has_no_mappings_to_show(self, managed: Service) -> None:
        vdisk = next(iter(managed.volumes))
        del managed.served.array.vdisks[vdisk]
        reply = managed.check(vdisk)
        assert reply.status_code == 400
        assert "not on IBM Storage Virtualize" in reply.json()["badRequest"]["message"]


def test_a_volume_in_a_file_has_no_mappings_to_show(tmp_path: Path, served: SimulatedArray) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(GRAIN))
    instances = tmp_path / "state" / "instances"
    instances.mkdir(parents=True)
    lines = ['name = "vm"', f'project_id = "{PROJECT}"', 'id = "5b5c9f1e-6c1b-4a0a-9d55-3f6f3a6d1c11"']
    lines += ["[[disks]]", 'name = "file"', f'path = "{tmp_path}/disk.img"', 'format = "raw"']
    (instances / "vm.toml").write_text("\n".join(lines))
    with running(configured(tmp_path, served, drivers__storage="files"), served) as service:
        reply = service.check("file")
    assert reply.status_code == 400
    assert "not on IBM Storage Virtualize" in reply.json()["badRequest"]["message"]


def test_a_volume_that_was_extended_is_refused_before_anything_is_touched(service: Service) -> None:
    snapshot_id = service.snapshot("one")
    service.served.array.resize("disk-b", SIZE + GRAIN)
    before = service.served.objects()
    path = f"/compute/v2.1/{PROJECT}/servers/{service.instance_id}/action"
    reply = service.call("POST", path, json={"vm-restore": {"instance_snapshot_id": snapshot_id}})
    assert reply.status_code == 400
    assert "resize it back" in reply.json()["badRequest"]["message"]
    assert service.served.objects() == before
