"""The image files that are attached to instances, and the file systems these lie on."""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stillframe.domain.errors import StillframeError
from stillframe.drivers.files.disks import Disk, Disks
from stillframe.drivers.files.images import Images
from stillframe.drivers.finding import Check, Finding, fail, ok, warn
from stillframe.drivers.image_files import opening
from stillframe.drivers.image_files.files import Files, allocated
from stillframe.drivers.image_files.formats import Format

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stillframe.drivers.inventory import Inventory
    from stillframe.settings import Settings

_PUT_BACK: Final = "put the disk back, or correct which file is attached"
_ANSWER: Final = "see whether its storage answers: ls, in the folder of its disks"
_MIB: Final = 1 << 20
_MOUNTS: Final = Path("/proc/self/mounts")
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def look(settings: Settings, inventory: Inventory) -> Iterator[Finding | Check]:
    """All of them; disks of one instance and of one mount are looked at by themselves."""
    trusted = opening.trusted_users(settings.state_dir)
    images = Images(timeout=5.0, trusted=trusted)
    try:
        disks = Disks(inventory).all()
    except StillframeError as error:
        yield fail("disks", f"nobody knows which there are: {error.message}", "see what the compute driver says")
        return
    by_instance: dict[str, list[Disk]] = defaultdict(list)
    for disk in disks:
        by_instance[disk.instance_id].append(disk)
    for theirs in by_instance.values():
        name = theirs[0].instance_name
        yield Check(f"disks of {name}", partial(_disks, name, theirs, images), _ANSWER)
    for point, there in _by_mount(disks).items():
        yield Check(f"file system at {point}", partial(_file_systems, there, Files(), trusted), _ANSWER)


def _disks(instance: str, disks: Sequence[Disk], images: Images) -> Iterator[Finding]:
    problems = list(_problems(disks, images))
    yield from problems
    if not problems:
        yield ok(f"disks of {instance}", f"{len(disks)} image files")


def _problems(disks: Sequence[Disk], images: Images) -> Iterator[Finding]:
    for disk in disks:
        what = f"disk {disk.instance_name}/{disk.name}"
        if disk.stated == Format.QCOW2 and shutil.which("qemu-img") is None:
            yield fail(what, "it is a qcow2 image, and there is no qemu-img", "install qemu-utils")
            continue
        problem = _problem(disk, images)
        if problem:
            yield fail(what, *problem)


def _problem(disk: Disk, images: Images) -> tuple[str, str] | None:
    """What is wrong with a disk, and how to mend it."""
    try:
        images.confirm(disk.path, disk.format)
    except opening.Unverified as error:
        return f"{error.folder} {error.why} could swap the files in it", error.mend
    except FileNotFoundError:
        return f"{disk.path} is not there", _PUT_BACK
    except (StillframeError, OSError) as error:
        return f"{disk.path}: {error}", _PUT_BACK
    return None


def _by_mount(disks: Sequence[Disk]) -> dict[str, list[Disk]]:
    """The disks by what their paths lie under; no file system is asked, for one that does not answer hides no other."""
    with _MOUNTS.open(encoding="utf-8", errors="surrogateescape") as mounts:
        points = [_OCTAL.sub(lambda found: chr(int(found[1], 8)), line.split()[1]) for line in mounts]
    points.sort(key=len, reverse=True)
    found: dict[str, list[Disk]] = defaultdict(list)
    for disk in disks:
        found[next((point for point in points if disk.path.is_relative_to(point)), "/")].append(disk)
    return found


def _file_systems(disks: Sequence[Disk], files: Files, trusted: frozenset[int]) -> Iterator[Finding]:
    folders: dict[int, tuple[Path, list[Path]]] = {}
    for disk in disks:
        if disk.file.is_file():
            folder = disk.file.parent
            folders.setdefault(folder.stat().st_dev, (folder, []))[1].append(disk.file)
    for folder, there in folders.values():
        yield _file_system(folder, there, files, trusted)


def _file_system(folder: Path, disks: Sequence[Path], files: Files, trusted: frozenset[int]) -> Finding:
    what = f"file system of {folder}"
    try:
        clones, free = files.can_clone(folder, trusted), files.free(folder)
        used = sum(allocated(disk) for disk in disks)
    except opening.Unverified as error:
        why = f"nobody knows whether it has reflinks: {error.folder} {error.why} could swap files"
        return warn(what, why, error.mend)
    except OSError as error:
        return fail(what, str(error), "see that it is mounted and can be written to")
    text = f"{free // _MIB} MiB free, {used // _MIB} MiB of disks, {'reflinks' if clones else 'no reflinks'}"
    if not clones and free < used:
        return warn(what, f"{text}: a snapshot of all disks does not fit", "make room, or move to XFS or btrfs")
    return ok(what, text if clones else f"{text}: snapshots copy every byte")
