"""Image files of instances that somebody else runs than QEMU's own package: what that offers is all that is needed."""

from __future__ import annotations

import ast
import re
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from stillframe import drivers
from stillframe.domain.errors import InvalidInput, NotSupported, Refused
from stillframe.domain.instance import Attachment, FileSource, Instance, PowerState
from stillframe.domain.snapshot import CopyKind, CopyName, CopyReference
from stillframe.drivers.block_jobs import BlockJobs, Words
from stillframe.drivers.files.images import Images
from stillframe.drivers.files.storage import FileStorage
from stillframe.drivers.image_files.files import Files
from stillframe.drivers.inventory import Attached, Inventory
from stillframe.drivers.memory import MemoryDriver
from stillframe.drivers.qemu.commands import Qemu
from stillframe.drivers.registry import open_drivers
from stillframe.settings import load
from stillframe.testing.world import OPERATION, SNAPSHOT, a_call

SIZE = 1 << 20


class Speaking(Qemu):
    """Asks QEMU, and calls what it asks by other names, as a platform does that has QEMU's processes in its care."""

    words = Words(
        silent="its domain cannot be asked",
        answer="see that libvirtd runs",
        merge="pull the overlay in (virsh blockcommit)",
        cancel="end it (virsh blockjob --abort)",
    )


class Elsewhere(Inventory):
    """An instance of the reference driver's, which is off, with a raw file attached instead of its volume."""

    def __init__(self, folder: Path, form: str = "raw") -> None:
        self.memory = MemoryDriver()
        self.disk = folder / "disks" / "disk.img"
        self.disk.parent.mkdir()
        self.disk.write_bytes(b"then".ljust(SIZE, b"\0"))
        self.kept = self.memory.add_instance("project", "vm", (SIZE,))
        self.source = FileSource(self.disk, form)
        jobs: BlockJobs = Speaking()
        self.storage = FileStorage(self, self.memory.compute, jobs, folder / "state", Files(), Images())

    @property
    def instance(self) -> Instance:
        there = self.memory.compute.get_instance(self.kept.id)
        return replace(there, attachments=(Attachment(self.kept.volume_ids[0], "disk", self.source, bootable=True),))

    def attached(self) -> Sequence[Attached]:
        one = self.instance
        return [Attached(one.id, one.name, one.project_id, one.attachments[0])]

    def name(self) -> CopyName:
        return CopyName(CopyKind.SNAPSHOT, SNAPSHOT, self.kept.volume_ids[0], OPERATION)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    return Elsewhere(tmp_path)


def test_files_of_others_are_cut_restored_and_deleted(elsewhere: Elsewhere) -> None:
    storage, instance = elsewhere.storage, elsewhere.instance
    (volume,) = storage.list_volumes("project")
    assert (volume.id, volume.size, volume.bootable) == (instance.volume_ids[0], SIZE, True)
    storage.check_cut(instance, instance.volume_ids)
    (cut,) = storage.cut(a_call(), instance, [elsewhere.name()]).snapshots
    assert storage.complete(a_call(), CopyReference(cut.id, volume.id)).ready
    elsewhere.disk.write_bytes(b"now".ljust(SIZE, b"\0"))
    assert storage.check_restore(instance, {volume.id: cut.id}) == {volume.id: "replace"}
    storage.restore(a_call(), instance, volume.id, cut.id)
    assert elsewhere.disk.read_bytes()[:4] == b"then"
    storage.delete(a_call(), CopyReference(cut.id, volume.id))
    assert storage.find(None) == []


def test_one_that_runs_where_nobody_can_ask_its_process_is_refused_in_its_platform_s_words(
    elsewhere: Elsewhere,
) -> None:
    elsewhere.memory.set_power_state(elsewhere.kept.id, PowerState.ACTIVE)
    if elsewhere.storage._files.can_clone(elsewhere.disk.parent):  # noqa: SLF001 -- shared blocks need nobody's help
        pytest.skip("the file system has reflinks")
    with pytest.raises(Refused, match="and its domain cannot be asked; see that libvirtd runs, shut the instance down"):
        elsewhere.storage.check_cut(elsewhere.instance, elsewhere.instance.volume_ids)
    with pytest.raises(Refused, match="runs, and its domain cannot be asked; see that libvirtd runs, or shut it down"):
        elsewhere.storage.cut(a_call(), elsewhere.instance, [elsewhere.name()])
    assert elsewhere.storage.find(None) == []


def test_a_guest_that_runs_is_asked_of_its_platform_alone_whether_it_can_be_shut_down(elsewhere: Elsewhere) -> None:
    """The reference driver shuts down any instance, and has no sockets that anybody could mend."""
    storage, instance = elsewhere.storage, elsewhere.instance
    (cut,) = storage.cut(a_call(), instance, [elsewhere.name()]).snapshots
    storage.complete(a_call(), CopyReference(cut.id, instance.volume_ids[0]))
    elsewhere.memory.set_power_state(elsewhere.kept.id, PowerState.ACTIVE)
    assert storage.check_restore(elsewhere.instance, {instance.volume_ids[0]: cut.id})
    elsewhere.source = replace(elsewhere.source, monitor="/nobody/listens/here")
    with pytest.raises(Refused, match=r"its domain cannot be asked, so that nobody knows .* or see that libvirtd runs"):
        storage.check_restore(elsewhere.instance, {instance.volume_ids[0]: cut.id})


@pytest.mark.parametrize("package", ["files", "image_files", "storage_virtualize"])
def test_storage_says_nothing_that_only_one_compute_driver_has(package: str) -> None:
    """Settings, sockets and declarations are its own; what it calls its processes' affairs is in `BlockJobs.words`."""
    said = [
        (path.name, node.value)
        for path in (Path(drivers.__path__[0]) / package).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert len(said) > 100
    assert [one for one in said if re.search(r"(?i)qmp|the declaration|block-(commit|job)", one[1])] == []


def test_a_format_that_only_the_other_one_knows_is_refused(tmp_path: Path) -> None:
    elsewhere = Elsewhere(tmp_path, "vmdk")
    with pytest.raises(NotSupported, match="Disk 'disk' of instance 'vm': It has the format 'vmdk'"):
        elsewhere.storage.check_cut(elsewhere.instance, elsewhere.instance.volume_ids)
    assert [one.status for one in elsewhere.storage.list_volumes(None)] == ["error"]


def test_what_was_attached_anew_since_the_cut_was_begun_is_refused(elsewhere: Elsewhere, tmp_path: Path) -> None:
    seen, other = elsewhere.instance, tmp_path / "disks" / f"{uuid.uuid4()}.img"
    other.write_bytes(bytes(SIZE))
    elsewhere.source = FileSource(other, "raw")
    with pytest.raises(Refused, match="has been changed meanwhile; repeat it"):
        elsewhere.storage.cut(a_call(), seen, [elsewhere.name()])
    assert elsewhere.storage.find(None) == []


def test_what_was_attached_anew_since_the_restore_was_begun_is_left_alone(elsewhere: Elsewhere, tmp_path: Path) -> None:
    seen, own = elsewhere.instance, elsewhere.source
    (cut,) = elsewhere.storage.cut(a_call(), seen, [elsewhere.name()]).snapshots
    elsewhere.storage.complete(a_call(), cut.reference)
    elsewhere.disk.write_bytes(b"now".ljust(SIZE, b"\0"))
    other = tmp_path / "disks" / f"{uuid.uuid4()}.img"
    other.write_bytes(bytes(SIZE))
    elsewhere.source = FileSource(other, "raw")
    with pytest.raises(Refused, match="has been changed meanwhile; repeat it"):
        elsewhere.storage.restore(a_call(), seen, seen.volume_ids[0], cut.id)
    assert (elsewhere.disk.read_bytes()[:3], other.read_bytes()) == (b"now", bytes(SIZE))
    elsewhere.source = own
    elsewhere.storage.restore(a_call(), seen, seen.volume_ids[0], cut.id)
    assert elsewhere.disk.read_bytes()[:4] == b"then"


def test_a_platform_that_does_not_say_what_is_needed_is_told_at_the_start(tmp_path: Path) -> None:
    overrides: list[tuple[str | None, str, object]] = [(None, "state_dir", str(tmp_path))]
    settings = load(overrides=[*overrides, ("drivers", "compute", "memory"), ("drivers", "storage", "files")])
    with pytest.raises(InvalidInput, match="does not say which image files there are"):
        open_drivers(settings)
