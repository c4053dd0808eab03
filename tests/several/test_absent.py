"""A storage driver that is switched off: what lies with it is neither used nor taken for something that is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from stillframe.cli.health import look
from stillframe.domain.errors import Refused
from stillframe.domain.snapshot import CopyKind, CopyName, CopyReference
from stillframe.drivers.finding import Level
from stillframe.drivers.memory import MemoryDriver
from stillframe.drivers.registry import open_drivers
from stillframe.settings import load
from stillframe.testing.world import OPERATION, SNAPSHOT, a_call
from tests.lab.storage_virtualize.server import SimulatedArray
from tests.several.stage import FILES, INSTANCE, PROJECT, SIZE, VDISKS, make
from tests.storage_virtualize.running import Service, running

ALL = "storage = files, storage_virtualize, memory"
#: What everybody is told, whatever is asked for.
TOLD = "lies with the storage driver 'files', which is not among those of the settings; name it in [drivers] storage"


@dataclass
class Switched:
    """The service of an instance of two files and two vdisks, by which drivers it is served, and a snapshot."""

    config: Path
    array: SimulatedArray
    snapshot_id: str = ""

    @contextmanager
    def served(self, storage: str) -> Iterator[Service]:
        self.config.write_text(self.config.read_text().replace(ALL, storage))
        with running(self.config, self.array, INSTANCE) as service:
            yield service
        self.config.write_text(self.config.read_text().replace(storage, ALL))

    def copies(self) -> int:
        """Of files, by their data."""
        return len([*self.config.parent.glob(".stillframe/*/data")])

    def refused(self, service: Service, action: dict[str, object]) -> str:
        reply = service.call("POST", f"/compute/v2.1/{PROJECT}/servers/{INSTANCE}/action", json=action)
        assert reply.status_code == 400, reply.text
        return str(reply.json()["badRequest"]["message"])


@pytest.fixture
def switched(tmp_path: Path, arrays: dict[str, SimulatedArray]) -> Switched:
    made = Switched(make(tmp_path, arrays), arrays["a"])
    with made.served(ALL) as service:
        made.snapshot_id = service.snapshot("kept")
    assert made.copies() == len(FILES)
    return made


@pytest.mark.parametrize("storage", ["storage = storage_virtualize", "storage = storage_virtualize, memory"])
def test_what_lies_with_a_driver_that_is_off_is_refused_shown_and_kept(switched: Switched, storage: str) -> None:
    with switched.served(storage) as service:
        before = service.show(switched.snapshot_id)
        assert len(before["snapshots"]) == len(FILES) + len(VDISKS)
        listed = service.call("GET", f"/volume/v3/{PROJECT}/snapshots/detail").json()["snapshots"]
        assert [one["status"] for one in listed] == ["available"] * len(before["snapshots"])
        assert TOLD in switched.refused(service, {"vm-restore": {"instance_snapshot_id": switched.snapshot_id}})
        assert TOLD in switched.refused(service, {"vm-snapshot": {"name": "more", "description": ""}})
        assert service.show(switched.snapshot_id) == before
        service.delete(switched.snapshot_id)
        shown = service.show(switched.snapshot_id)
        assert (shown["status"], switched.copies()) == ("error-deleting", len(FILES))
        assert TOLD in shown["fault"]["message"]
    with switched.served(ALL) as service:
        service.delete(switched.snapshot_id)
        assert switched.copies() == 0


def test_a_copy_is_not_gone_because_its_instance_is(switched: Switched) -> None:
    with switched.served("storage = storage_virtualize") as service:
        (switched.config.parent / "state" / "instances" / "vm.toml").unlink()
        service.delete(switched.snapshot_id)
        shown = service.show(switched.snapshot_id)
        assert (shown["status"], switched.copies()) == ("error-deleting", len(FILES))
        assert TOLD in shown["fault"]["message"]


def test_a_copy_without_a_record_is_not_gone_either(switched: Switched) -> None:
    """The records of copies have been lost, and the instance still says what the volume is."""
    for record in (switched.config.parent / "state" / "local" / "copies").iterdir():
        record.unlink()
    with switched.served("storage = storage_virtualize") as service:
        service.delete(switched.snapshot_id)
        shown = service.show(switched.snapshot_id)
        assert shown["status"] == "error-deleting"
        assert TOLD in shown["fault"]["message"]


def test_a_driver_that_is_used_alone_may_see_to_the_volumes_of_another_one(
    tmp_path: Path, arrays: dict[str, SimulatedArray]
) -> None:
    """Arrays behind a platform that names its volumes there by their ids."""
    config = make(tmp_path, arrays)
    config.write_text(config.read_text().replace(ALL, "compute = memory\nstorage = storage_virtualize"))
    drivers = open_drivers(load([str(config)]))
    memory = drivers.ability(MemoryDriver)
    assert memory is not None
    instance = memory.add_instance(PROJECT, "vm", [SIZE])
    (volume_id,) = instance.volume_ids
    with pytest.raises(Refused, match="No array has the vdisk"):
        drivers.storage.check_cut(instance, [volume_id])
    arrays["a"].array.add_vdisk(f"volume-{volume_id}", SIZE)
    drivers.storage.check_cut(instance, [volume_id])
    name = CopyName(CopyKind.SNAPSHOT, SNAPSHOT, volume_id, OPERATION)
    (cut,) = drivers.storage.cut(a_call(), instance, [name]).snapshots
    assert drivers.storage.complete(a_call(), cut.reference).ready
    assert drivers.storage.check_restore(instance, {volume_id: cut.id})
    drivers.storage.delete(a_call(), CopyReference(cut.id, volume_id))
    assert drivers.storage.find(None) == []


def test_the_doctor_names_the_driver_and_misses_no_copy(switched: Switched) -> None:
    with switched.served("storage = storage_virtualize"):
        found = {one.check: one for one in look(load([str(switched.config)]), 30)}
    told = found["storage driver 'files'"]
    assert (told.level, "2 copies" in told.detail, "[drivers] storage" in told.mend) == (Level.FAIL, True, True)
    assert [one for one in found.values() if one.level is Level.FAIL] == [told]
