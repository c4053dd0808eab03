"""Copies that are gone, cut off or out of reach: each says what is the matter, and that it is."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from falcon.testing import TestClient

from stillframe import main
from stillframe.domain.errors import BackendError, Damaged, Refused
from stillframe.domain.instance import Instance
from stillframe.domain.snapshot import CopyReference
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.platform import Drivers
from stillframe.drivers.qemu.declaration import Disk
from stillframe.service.janitor import Janitor
from stillframe.settings import load
from stillframe.testing.world import MIB, a_call, pattern
from tests.conformance.worlds import LocalWorld, run
from tests.lab.filesystems import mounted


def kept(world: LocalWorld) -> tuple[Instance, str]:
    """An instance with a snapshot of content 1, and content 2 in its disk."""
    instance = world.add()
    world.write(instance.volume_ids[0], 0, pattern(1))
    copy_id = world.snapshot(instance)[0].id
    world.write(instance.volume_ids[0], 0, pattern(2))
    return instance, copy_id


def other_data(data: Path) -> None:
    data.unlink()
    data.symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (Path.unlink, "data are gone"),
        (lambda data: data.write_bytes(b"short"), "another length"),
        (other_data, "cannot be opened"),
    ],
    ids=["gone", "cut-off", "link"],
)
def test_harm_to_the_data_is_told_by_the_check_the_restore_and_the_round(
    plain: LocalWorld, harm: Callable[[Path], object], words: str
) -> None:
    instance, copy_id = kept(plain)
    volume_id = instance.volume_ids[0]
    assert plain.leftovers.losses() == []
    harm(plain.disks / ".stillframe" / copy_id / "data")
    with pytest.raises(Damaged, match=words):
        plain.storage.check_restore(instance, {volume_id: copy_id})
    with pytest.raises(Damaged, match=words):
        plain.storage.restore(a_call(), instance, volume_id, copy_id)
    (loss,) = plain.leftovers.losses()
    assert (loss.copy_id, words in loss.why) == (copy_id, True)
    assert plain.read(volume_id) == pattern(2)
    plain.storage.delete(a_call(), CopyReference(copy_id))
    assert plain.leftovers.losses() == []


@pytest.mark.parametrize(
    ("harm", "words"),
    [(Path.unlink, "is gone"), (lambda below: os.truncate(below, 2 * MIB), "has been changed")],
    ids=["gone", "resized"],
)
def test_harm_to_an_image_below_a_copy_is_told_by_the_round(
    plain: LocalWorld, harm: Callable[[Path], object], words: str
) -> None:
    below, above = plain.disks / "below", plain.disks / "above"
    below.write_bytes(bytes(MIB))
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(below), "-F", "raw", str(above))
    instance = plain.declare("above", [Disk(name="disk0", path=above, format=Format.QCOW2)])
    copy_id = plain.snapshot(instance)[0].id
    assert plain.leftovers.losses() == []
    harm(below)
    (loss,) = plain.leftovers.losses()
    assert (loss.copy_id, words in loss.why, str(plain.folder) in loss.why) == (copy_id, True, False)
    with pytest.raises(Refused, match="image below"):
        plain.storage.check_restore(instance, {instance.volume_ids[0]: copy_id})


class TestFileSystem:
    @pytest.fixture
    def apart(self, tmp_path: Path) -> Iterator[LocalWorld]:
        """A world whose disks lie on a file system of their own."""
        with mounted(tmp_path, "ext4", 96 * MIB) as point:
            world = LocalWorld(tmp_path / "world", Format.RAW)
            world.disks = point / "disks"
            world.disks.mkdir()
            yield world
            world.close()

    def test_one_that_is_not_mounted_is_named_and_loses_nothing(self, apart: LocalWorld) -> None:
        instance, copy_id = kept(apart)
        volume_id, point = instance.volume_ids[0], apart.disks.parent
        subprocess.run(["umount", str(point)], check=True)
        try:
            for way in (
                lambda: apart.storage.check_restore(instance, {volume_id: copy_id}),
                lambda: apart.storage.restore(a_call(), instance, volume_id, copy_id),
                lambda: apart.storage.delete(a_call(), CopyReference(copy_id)),
            ):
                with pytest.raises(BackendError, match="not mounted"):
                    way()
            assert [loss.copy_id for loss in apart.leftovers.losses()] == [copy_id]
            assert [one.id for one in apart.storage.find(None)] == [copy_id]
        finally:
            subprocess.run(["mount", "-o", "loop", str(point.parent / "ext4.img"), str(point)], check=True)
        apart.storage.restore(a_call(), instance, volume_id, copy_id)
        assert apart.read(volume_id) == pattern(1)

    def test_one_that_is_gone_for_good_can_be_forgotten_with_an_empty_one_in_its_place(self, apart: LocalWorld) -> None:
        _, copy_id = kept(apart)
        point = apart.disks.parent
        subprocess.run(["umount", str(point)], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", str(point)], check=True)
        apart.storage.delete(a_call(), CopyReference(copy_id))
        assert apart.storage.find(None) == []

    def test_one_that_is_mounted_read_only_is_named(self, apart: LocalWorld) -> None:
        instance, copy_id = kept(apart)
        point = str(apart.disks.parent)
        subprocess.run(["mount", "-o", "remount,ro", point], check=True)
        try:
            with pytest.raises(Refused, match="mount it for writing"):
                apart.storage.check_cut(instance, instance.volume_ids)
            with pytest.raises(Refused, match="mount it for writing"):
                apart.storage.check_restore(instance, {instance.volume_ids[0]: copy_id})
        finally:
            subprocess.run(["mount", "-o", "remount,rw", point], check=True)
        apart.storage.check_restore(instance, {instance.volume_ids[0]: copy_id})

    def test_its_disk_that_was_deleted_is_named(self, plain: LocalWorld) -> None:
        instance, copy_id = kept(plain)
        plain.lose(instance.volume_ids[0])
        with pytest.raises(Refused, match="put it back"):
            plain.storage.check_restore(instance, {instance.volume_ids[0]: copy_id})


def test_the_janitor_counts_them(plain: LocalWorld) -> None:
    _, copy_id = kept(plain)
    settings = load(overrides=[(None, "state_dir", str(plain.folder / "service")), (None, "auth_strategy", "noauth")])
    drivers = Drivers(plain.compute, plain.storage, (plain.leftovers,))
    service = main.build(settings, drivers=drivers)
    wsgi = service.wsgi

    def counted() -> str:
        client = TestClient(
            lambda environ, start_response: wsgi(environ, start_response),  # noqa: PLW0108 -- a plain WSGI callable
            headers={"Host": "localhost"},
        )
        text = client.simulate_get("/metrics", remote_addr="127.0.0.1").text
        return next(line for line in text.splitlines() if line.startswith("stillframe_copies_lost "))

    try:
        service.background.run(Janitor.name)
        assert counted() == "stillframe_copies_lost 0.0"
        (plain.disks / ".stillframe" / copy_id / "data").unlink()
        service.background.run(Janitor.name)
        assert counted() == "stillframe_copies_lost 1.0"
    finally:
        service.stop()
