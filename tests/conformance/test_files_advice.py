"""What a refusal of an image file advises is done with the very command that it tells, and mends it."""

from __future__ import annotations

import os
import shlex
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillframe.domain.errors import NotSupported, Refused, StillframeError
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.qemu.declaration import Disk
from stillframe.testing.world import MIB, SIZE, a_call, pattern
from tests.conformance.conftest import local_world
from tests.conformance.worlds import LocalWorld, ask, content, run
from tests.harness.faults import wait_until

_FEATURES = 72
_CORRUPT = 1 << 1


@pytest.fixture
def qcow2(request: pytest.FixtureRequest) -> Iterator[LocalWorld]:
    yield from local_world(request, "ext4", "qcow2")


def advised(refused: pytest.ExceptionInfo[StillframeError], **places: str) -> list[str]:
    """The command of qemu-img's that a message tells, with what stands for a name in it filled in."""
    command = refused.value.message[refused.value.message.index("qemu-img ") :].rstrip(".")
    for what, place in places.items():
        command = command.replace(f"<its {what}>", shlex.quote(place))
    return shlex.split(command)


def of(path: Path) -> list[Disk]:
    return [Disk(name="root", path=path, format=Format.QCOW2)]


def filled(path: Path, *options: str) -> Path:
    run("qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), str(SIZE))
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 512", str(path))
    return path


def test_an_image_that_is_marked_as_corrupt_is_repaired(qcow2: LocalWorld) -> None:
    path = filled(qcow2.disks / "disk")
    with path.open("r+b") as file:
        file.seek(_FEATURES)
        file.write(struct.pack(">Q", _CORRUPT))
    with pytest.raises(Refused, match="marked it as corrupt") as refused:
        qcow2.declare("vm", of(path))
    run(*advised(refused), str(path))
    qcow2.snapshot(qcow2.declare("vm", of(path)))


def test_an_image_with_its_data_elsewhere_is_converted(qcow2: LocalWorld) -> None:
    path, whole = filled(qcow2.disks / "disk", "-o", f"data_file={qcow2.disks / 'data'}"), qcow2.disks / "whole"
    with pytest.raises(NotSupported, match="data in another file") as refused:
        qcow2.declare("vm", of(path))
    run(*advised(refused), str(path), str(whole))
    qcow2.snapshot(qcow2.declare("vm", of(whole)))
    assert content(whole, Format.QCOW2, qcow2.folder)[:512] == b"\7" * 512


def test_an_image_of_too_small_clusters_is_converted(qcow2: LocalWorld) -> None:
    path, coarse = filled(qcow2.disks / "disk", "-o", "cluster_size=512,refcount_bits=64"), qcow2.disks / "coarse"
    os.truncate(path, 32 << 30)
    instance = qcow2.declare("vm", of(path))
    with pytest.raises(NotSupported, match="too large to be checked") as refused:
        qcow2.storage.check_cut(instance, instance.volume_ids)
    run(*advised(refused), str(path), str(coarse))
    qcow2.snapshot(qcow2.declare("coarse", of(coarse)))


def test_a_backing_file_of_two_formats_is_given_one_and_kept(qcow2: LocalWorld) -> None:
    base, path = filled(qcow2.disks / "base"), qcow2.disks / "disk"
    stored = f'json:{{"driver":"raw","file":{{"driver":"file","filename":"{base}"}}}}'
    run("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", stored, "-F", "qcow2", str(path), str(SIZE))
    with pytest.raises(NotSupported, match="two formats") as refused:
        qcow2.declare("vm", of(path))
    run(*advised(refused, name=str(base), format="qcow2"), str(path))
    qcow2.snapshot(qcow2.declare("vm", of(path)))
    assert content(path, Format.QCOW2, qcow2.folder)[:512] == b"\7" * 512


def test_a_disk_that_was_resized_is_resized_back(qcow2: LocalWorld) -> None:
    instance = qcow2.add()
    volume_id = instance.volume_ids[0]
    qcow2.write(volume_id, 0, pattern(1))
    copy = qcow2.snapshot(instance)[0]
    for size in (SIZE // 2, 2 * SIZE):
        qcow2.resize(volume_id, size)
        with pytest.raises(Refused, match="resize it back") as refused:
            qcow2.storage.check_restore(instance, {volume_id: copy.id})
        run(*advised(refused, file=str(qcow2.path(volume_id))))
        qcow2.storage.restore(a_call(), instance, volume_id, copy.id)
        assert qcow2.read(volume_id) == pattern(1)


def test_an_overlay_over_a_disk_that_is_in_use_is_merged(qcow2: LocalWorld) -> None:
    instance = qcow2.add()
    copies = {instance.volume_ids[0]: qcow2.snapshot(instance)[0].id}
    qcow2.compute.start(a_call(), instance.id)
    monitor = qcow2.second_monitor(instance.id)
    overlay = {"node-name": "disk0", "snapshot-file": str(qcow2.folder / "over"), "format": "qcow2"}
    ask(monitor, "blockdev-snapshot-sync", {**overlay, "snapshot-node-name": "over"})
    qcow2.write(instance.volume_ids[0], 0, pattern(2, MIB))
    for check in (
        lambda: qcow2.storage.check_restore(instance, copies),
        lambda: qcow2.storage.cut(a_call(), instance, qcow2.names(instance)),
    ):
        with pytest.raises(Refused, match="block-commit"):
            check()
    ask(monitor, "block-commit", {"job-id": "merge", "device": "over"})
    wait_until(lambda: [one["ready"] for one in ask(monitor, "query-block-jobs")] == [True], "nothing was merged")
    ask(monitor, "block-job-complete", {"device": "merge"})
    wait_until(lambda: ask(monitor, "query-block-jobs") == [], "the overlay stays")
    instance = qcow2.compute.get_instance(instance.id)
    qcow2.storage.check_restore(instance, copies)
    qcow2.snapshot(instance)
