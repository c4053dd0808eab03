"""Copies of the release before, whose records lay beside the disks: taken over if they hold together, else left."""

from __future__ import annotations

import itertools
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stillframe import main
from stillframe.domain.errors import NotFound, Refused, Unavailable
from stillframe.domain.instance import Instance
from stillframe.domain.snapshot import CopyReference
from stillframe.drivers.files.takeover import TakeOver
from stillframe.drivers.image_files.files import Files
from stillframe.drivers.image_files.formats import Format
from stillframe.settings import load
from stillframe.testing.world import SIZE, a_call, pattern
from tests.conformance.worlds import LocalWorld, Stopped, stopping

NEIGHBOUR = 65534


@pytest.fixture
def before(tmp_path: Path) -> Iterator[LocalWorld]:
    world = LocalWorld(tmp_path / "world", Format.RAW)
    yield world
    world.close()


def aged(world: LocalWorld) -> Path:
    """The world as the release before would have left it; returns the folder of the copies."""
    root = world.disks / ".stillframe"
    notes = world.state / "roots"
    notes.mkdir(exist_ok=True)
    (notes / "0123456789abcdef").write_text(str(root))
    root.chmod(0o711)
    for record in (world.state / "copies").iterdir():
        told: dict[str, Any] = json.loads(record.read_text())
        ready = told.pop("stage") == "ready"
        del told["root"], told["mount"]
        folder = root / record.name.rpartition(".")[2]
        (folder / "meta.json").write_text(json.dumps({**told, "mode": 0o100644, "uid": 0, "gid": 0}))
        folder.chmod(0o711)
        if not ready:
            folder.rename(f"{folder}.partial")
        record.unlink()
    return root


def snapshots(world: LocalWorld) -> tuple[Instance, str, str]:
    """An instance with a complete copy of content 1 and a half-made one, and content 2 in its disk."""
    instance = world.add()
    world.write(instance.volume_ids[0], 0, pattern(1))
    whole = world.snapshot(instance)[0].id
    half = world.storage.cut(a_call(), instance, world.names(instance)).snapshots[0].id
    world.write(instance.volume_ids[0], 0, pattern(2))
    return instance, whole, half


def take_over(world: LocalWorld, files: Files | None = None) -> None:
    TakeOver(files or Files(), world.state).run()


def test_copies_of_the_release_before_are_restored_from_and_completed(before: LocalWorld) -> None:
    instance, whole, half = snapshots(before)
    root = aged(before)
    assert before.storage.find(None) == []
    for _ in range(2):
        take_over(before)
        assert {one.id: one.ready for one in before.storage.find(None)} == {whole: True, half: False}
    before.storage.complete(a_call(), CopyReference(half))
    before.storage.restore(a_call(), instance, instance.volume_ids[0], whole)
    assert before.read(instance.volume_ids[0]) == pattern(1)
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == sorted(
        [whole, f"{whole}/data", half, f"{half}/data"]
    )
    assert {stat.S_IMODE(path.stat().st_mode) for path in (root, root / whole, root / half)} == {0o700}
    assert list((before.state / "roots").iterdir()) == []


def test_copies_that_are_yet_to_be_taken_over_are_not_said_to_be_gone(before: LocalWorld) -> None:
    instance, whole, _half = snapshots(before)
    aged(before)
    with pytest.raises(Unavailable, match="not been taken over yet"):
        before.storage.check_restore(instance, {instance.volume_ids[0]: whole})
    take_over(before)
    before.storage.check_restore(instance, {instance.volume_ids[0]: whole})
    with pytest.raises(NotFound):
        before.storage.check_restore(instance, {instance.volume_ids[0]: "another"})


def test_a_kill_at_any_point_is_made_good_by_the_next_start(before: LocalWorld) -> None:
    instance, whole, half = snapshots(before)
    stops = 0
    for at in itertools.count():
        root = aged(before)
        (root / f"{whole}.deleting").mkdir()

        try:
            take_over(before, stopping(at)[0])
        except Stopped:
            take_over(before)
        else:
            break
        stops += 1
        assert {one.id: one.ready for one in before.storage.find(None)} == {whole: True, half: False}
        assert sorted(path.name for path in root.iterdir()) == sorted([whole, half])
        before.storage.check_restore(instance, {instance.volume_ids[0]: whole})
    assert stops > 5


def forge(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        told = json.loads((folder / "meta.json").read_text())
        (folder / "meta.json").write_text(json.dumps({**told, **changes}))

    return change


def link_data(folder: Path) -> None:
    (folder / "data").unlink()
    (folder / "data").symlink_to("/etc/passwd")


def give_record_away(folder: Path) -> None:
    os.chown(folder / "meta.json", NEIGHBOUR, NEIGHBOUR)


@pytest.mark.parametrize(
    "harm",
    [
        forge(source="/etc/passwd"),
        forge(size="many"),
        forge(file_size=SIZE + 1),
        link_data,
        give_record_away,
        lambda folder: os.truncate(folder / "data", 100),
        lambda folder: (folder / "meta.json").write_text("[" * 100_000),
        lambda folder: (folder / "meta.json").unlink(),
    ],
    ids=["source", "garbage", "length", "link", "owner", "cut-off", "deep", "none"],
)
def test_what_does_not_hold_together_is_left_as_an_orphan_and_named(
    before: LocalWorld, harm: Callable[[Path], None]
) -> None:
    instance, whole, _ = snapshots(before)
    root = aged(before)
    harm(root / whole)
    take_over(before)
    assert [one.ready for one in before.storage.find(None)] == [False]
    with pytest.raises(NotFound):
        before.storage.check_restore(instance, {instance.volume_ids[0]: whole})
    orphans = before.leftovers.orphans()
    assert str(root / whole) in orphans


def test_records_that_come_to_lie_beside_a_disk_later_are_not_believed(before: LocalWorld) -> None:
    _, whole, half = snapshots(before)
    root = aged(before)
    kept = (root / whole / "meta.json").read_bytes()
    take_over(before)
    for one in (whole, half):
        before.storage.delete(a_call(), CopyReference(one))
    (root / whole).mkdir()
    (root / whole / "meta.json").write_bytes(kept)
    (root / whole / "data").write_bytes(bytes(SIZE))
    take_over(before)
    assert before.storage.find(None) == []


def test_a_folder_that_others_may_write_to_waits_until_it_is_mended(before: LocalWorld) -> None:
    _, whole, half = snapshots(before)
    aged(before)
    before.disks.chmod(0o777)
    take_over(before)
    assert before.storage.find(None) == []
    before.disks.chmod(0o755)
    take_over(before)
    assert {one.id for one in before.storage.find(None)} == {whole, half}


def test_a_folder_that_is_not_there_waits_until_it_is(before: LocalWorld) -> None:
    instance, whole, half = snapshots(before)
    aged(before)
    away = before.disks.rename(before.folder / "away")
    take_over(before)
    assert before.storage.find(None) == []
    with pytest.raises(Refused):
        before.storage.check_cut(instance, instance.volume_ids)
    away.rename(before.disks)
    take_over(before)
    assert {one.id for one in before.storage.find(None)} == {whole, half}


def test_the_service_does_it_when_it_starts(tmp_path: Path) -> None:
    world = LocalWorld(tmp_path, Format.RAW)
    world.state = tmp_path / "service" / "local"
    world.use(Files())
    try:
        _, whole, half = snapshots(world)
        aged(world)
        overrides = [
            (None, "state_dir", str(tmp_path / "service")),
            (None, "auth_strategy", "noauth"),
            ("qemu", "instances_dir", str(world.instances)),
        ]
        service = main.build(load(overrides=overrides))
        service.start()
        service.stop()
        assert {one.id for one in world.storage.find(None)} == {whole, half}
    finally:
        world.close()
