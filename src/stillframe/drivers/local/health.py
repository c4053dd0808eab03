"""The declared instances of this machine, their disks and sockets, and the file systems these lie on."""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stillframe.domain.errors import StillframeError
from stillframe.domain.instance import PowerState
from stillframe.drivers.finding import Check, Finding, fail, ok, warn
from stillframe.drivers.image_files import opening
from stillframe.drivers.image_files.files import Files, allocated
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.local import options
from stillframe.drivers.local.declaration import Declaration, Disk, instance_files, load
from stillframe.drivers.local.images import Images
from stillframe.drivers.local.power import power_state
from stillframe.drivers.local.qemu import Qemu

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stillframe.settings import Settings

_PUT_BACK: Final = "put the disk back, or correct the declaration"
_ANSWER: Final = "see whether its storage answers: ls, in the folder of its disks"
_MIB: Final = 1 << 20
_MOUNTS: Final = Path("/proc/self/mounts")
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def look(settings: Settings) -> Iterator[Finding | Check]:
    """All of them; disks of one instance and of one mount are looked at by themselves."""
    folder = options.read(settings).instances
    declarations: list[Declaration] = []
    try:
        paths = instance_files(folder)
    except OSError as error:
        yield fail("instances", f"{folder} cannot be read: {error.strerror}", "let the service's user read it")
        return
    for path in paths:
        try:
            declarations.append(load(path))
        except StillframeError as error:
            yield fail("instance file", error.message, f"correct {path}")
    yield from _clashes(declarations)
    if not declarations:
        yield warn("instances", f"none is declared in {folder}", "stillframe instance add ...")
    images, qemu = Images(timeout=5.0, trusted=opening.trusted_users(settings.state_dir)), Qemu(timeout=5.0)
    for declaration in declarations:
        yield Check(f"instance {declaration.name}", partial(_instance, declaration, images, qemu), _ANSWER)
    trusted = opening.trusted_users(settings.state_dir)
    for point, disks in _by_mount(declarations).items():
        yield Check(f"file system at {point}", partial(_file_systems, disks, Files(), trusted), _ANSWER)


def _instance(declaration: Declaration, images: Images, qemu: Qemu) -> Iterator[Finding]:
    problems = [*_disks(declaration, images), *_sockets(declaration, qemu)]
    yield from problems
    if not problems:
        yield ok(f"instance {declaration.name}", f"{len(declaration.attached)} disks")


def _clashes(declarations: Sequence[Declaration]) -> Iterator[Finding]:
    ids: dict[str, str] = {}
    for declaration in declarations:
        other = ids.setdefault(declaration.id, declaration.name)
        if other != declaration.name:
            yield fail(
                f"instance {declaration.name}",
                f"it has the id of '{other}' and is left out",
                "give it an id of its own",
            )


def _disks(declaration: Declaration, images: Images) -> Iterator[Finding]:
    for disk in declaration.disks:
        what = f"disk {declaration.name}/{disk.name}"
        if disk.format is Format.QCOW2 and shutil.which("qemu-img") is None:
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


def _sockets(declaration: Declaration, qemu: Qemu) -> Iterator[Finding]:
    what = f"instance {declaration.name}"
    try:
        state = power_state(declaration, qemu)
    except StillframeError as error:
        yield warn(what, f"its monitor cannot be asked: {error.message}", "look whether another program holds it")
        return
    if state is PowerState.SHUTOFF:
        return
    if state is PowerState.ERROR:
        yield fail(what, "its guest has broken down", "look at the guest")
    socket, agent = declaration.qmp_socket, declaration.guest_agent_socket
    if socket is not None and not declaration.start_command:
        yield warn(what, "it has no start command: after a restore with --force it stays off", "declare start_command")
    if socket is None:
        yield warn(what, "it runs and has no qmp_socket: it cannot be held still, shut down or started", "declare one")
    elif not socket.exists():
        yield fail(what, f"it runs, but nobody listens on {socket}", "correct qmp_socket, or start it with -qmp")
    if agent is None:
        yield warn(what, "it runs without guest agent: snapshots are crash-consistent", "declare guest_agent_socket")
    elif not agent.exists():
        yield fail(what, f"it runs, but {agent} is not there", "correct guest_agent_socket")


def _by_mount(declarations: Sequence[Declaration]) -> dict[str, list[Disk]]:
    """The disks by what their paths lie under; no file system is asked, for one that does not answer hides no other."""
    with _MOUNTS.open(encoding="utf-8", errors="surrogateescape") as mounts:
        points = [_OCTAL.sub(lambda found: chr(int(found[1], 8)), line.split()[1]) for line in mounts]
    points.sort(key=len, reverse=True)
    found: dict[str, list[Disk]] = defaultdict(list)
    for disk in (disk for declaration in declarations for disk in declaration.disks):
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
