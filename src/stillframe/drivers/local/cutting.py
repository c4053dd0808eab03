"""Making copies: the cut, which is over in an instant, and the completion, which may take its time."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stillframe.domain.errors import BackendError, Damaged, NotFound, OutOfSpace, Refused, Unavailable
from stillframe.domain.instance import PowerState
from stillframe.domain.snapshot import CopyKind, CopyName, VolumeSnapshot
from stillframe.drivers.call import Call
from stillframe.drivers.local import copies
from stillframe.drivers.local.border import border
from stillframe.drivers.local.copies import Copies, Copy, Method, Place
from stillframe.drivers.local.declaration import Declaration, Disk
from stillframe.drivers.local.files import Files
from stillframe.drivers.local.images import Format, Images, same_file
from stillframe.drivers.local.power import power_state
from stillframe.drivers.local.qemu import Backup, Node, Qemu
from stillframe.drivers.storage import Cut

_POLL_SECONDS: Final = 0.2
_JOB_END_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Plan:
    copy: Copy
    disk: Disk
    place: Place

    @property
    def data(self) -> Path:
        return self.place.partial / copies.DATA

    @property
    def draft(self) -> Path:
        """Bytes lie here until they are all there, so that a half-made copy has no data."""
        return self.place.partial / f"{copies.DATA}.new"


class Cutter:
    """Cuts, completes and drops copies."""

    def __init__(self, files: Files, images: Images, qemu: Qemu, books: Copies) -> None:
        self._files = files
        self._images = images
        self._qemu = qemu
        self._books = books

    def cut(self, call: Call, declaration: Declaration, names: Sequence[CopyName]) -> Cut:
        """Fix the content of one disk a name; copies that earlier attempts left are put aside, not used."""
        with border("cutting the disks"):
            disks = [_disk(declaration, name.volume_id) for name in names]
            clones = [self._files.can_clone(disk.file.parent) for disk in disks]
            # Asked again: a hard link to the disk of an instance that runs after all would follow every write.
            off = not all(clones) and power_state(declaration, self._images, self._qemu) is PowerState.SHUTOFF
            plans = [
                self._plan(declaration, disk, name, Method.CLONE if clone else _method(declaration, name.kind, off=off))
                for disk, name, clone in zip(disks, names, clones, strict=True)
            ]
            for plan in plans:
                self.put_aside(call, plan.place)
                self._files.make_folder_with(plan.place.partial, copies.meta(Path()).name, copies.content(plan.copy))
            backups = self._targets(declaration, plans)
            first = time.monotonic()
            last = first
            for plan in plans:
                last = self._fix(call, plan) or last
            if backups and declaration.qmp_socket:
                self._qemu.start_backups(declaration.qmp_socket, backups)
                last = time.monotonic()
        return Cut(
            snapshots=tuple(copies.snapshot(plan.copy, ready=False) for plan in plans),
            simultaneous=bool(backups) and len(backups) == len(plans),
            # One transaction is one instant, however long QEMU takes to answer.
            window_ms=0.0 if len(backups) == len(plans) else (last - first) * 1000,
        )

    def complete(self, call: Call, copy_id: str) -> VolumeSnapshot:
        """Make a cut copy durable and check it; may be repeated whatever happened before."""
        folder = self._books.locate(copy_id)
        if folder is None:
            raise NotFound(f"there is no copy {copy_id}")
        copy, place = copies.read(folder), Place(folder.parent, copy_id)
        with border(f"completing the copy {copy_id}"):
            if not copies.is_ready(folder):
                if copy.method is Method.BACKUP:
                    self._await_backup(call, copy, folder)
                copy = self._settle(call, copy, place)
            if copy.method is Method.BACKUP and copy.socket:
                self._qemu.dismiss_job(Path(copy.socket), copy.job)
            self._files.remove_folder(place.deleting, copies.META)
        call.report(copy.size, copy.size)
        return copies.snapshot(copy, ready=True)

    def put_aside(self, call: Call, place: Place) -> None:
        """Take a copy out of the books, quickly; what it occupies is freed later by `remove_folder`."""
        for folder in (place.partial, place.final):
            if not folder.is_dir():
                continue
            self._end_backup(call, folder)
            if place.deleting.exists():
                self._files.remove_folder(place.deleting, copies.META)
            self._files.rename(folder, place.deleting)

    def _plan(self, declaration: Declaration, disk: Disk, name: CopyName, method: Method) -> _Plan:
        file = disk.file
        found = file.stat()
        copy = Copy(
            name=name,
            source=str(file),
            format=disk.format,
            method=method,
            size=self._images.shape(file, disk.format).size,
            mode=found.st_mode,
            uid=found.st_uid,
            gid=found.st_gid,
            socket=str(declaration.qmp_socket) if declaration.qmp_socket else None,
            # A raw disk's file is all there is to know; asking about a chain takes a program, and a guest may wait.
            file_size=found.st_size if disk.format is Format.RAW else None,
        )
        return _Plan(copy, disk, Place(self._books.root(file), name.uuid))

    def _fix(self, call: Call, plan: _Plan) -> float | None:
        source = plan.disk.file
        match plan.copy.method:
            case Method.CLONE:
                self._files.clone(source, plan.draft)
            case Method.LINK:
                self._files.link(source, plan.draft)
            case Method.COPY:
                self._files.copy(source, plan.draft, _tick(call))
            case Method.BACKUP:
                return None
        instant = time.monotonic()
        self._files.rename(plan.draft, plan.data)
        return instant

    def _targets(self, declaration: Declaration, plans: Sequence[_Plan]) -> list[Backup]:
        wanted = [plan for plan in plans if plan.copy.method is Method.BACKUP]
        if not wanted or declaration.qmp_socket is None:
            return []
        nodes = self._qemu.nodes(declaration.qmp_socket)
        return [self._target(declaration.qmp_socket, plan, _source(plan.disk, nodes)) for plan in wanted]

    def _target(self, socket: Path, plan: _Plan, source: Node) -> Backup:
        raw = plan.disk.format is Format.RAW
        self._files.create(plan.data, plan.copy.size if raw else 0, plan.disk.file, reserve=raw)
        below: Mapping[str, Any] | None = None
        if not raw:
            shape = self._images.shape(plan.disk.file, plan.disk.format)
            like = self._images.require_rebuildable(plan.disk.file)
            with self._images.layers(plan.disk.file, plan.disk.format, plan.disk.file.parent) as layers:
                stored = (shape.backing, layers[0].format.value) if shape.backing and layers else None
                self._images.create(plan.data, plan.copy.size, like, stored)
                if layers:
                    file = {"driver": "file", "filename": str(layers[0].named)}
                    below = {"driver": layers[0].format.value, "file": file, "read-only": True}
        self._qemu.add_target(socket, plan.copy.job, plan.data, plan.disk.format, below)
        # The copy has the same files below it as the disk, so only the disk's own layer is copied.
        return Backup(plan.copy.job, source.name, "top" if below else "full")

    def _await_backup(self, call: Call, copy: Copy, folder: Path) -> None:
        socket = Path(copy.socket or "")
        while True:
            call.check()
            job = self._qemu.job(socket, copy.job)
            if job is None:
                raise Damaged(
                    f"the copy of {copy.source} was not complete when its QEMU process ended; take the snapshot again"
                )
            if job.total:
                call.report(min(job.done, job.total), job.total)
            if job.ended:
                break
            time.sleep(_POLL_SECONDS)
        if job.error and os.strerror(errno.ENOSPC) in job.error:
            raise OutOfSpace(f"QEMU could not copy {copy.source}: {job.error}; make room and take the snapshot again")
        if job.error:
            raise Damaged(f"QEMU could not copy {copy.source}: {job.error}; take the snapshot again")
        self._qemu.remove_target(socket, copy.job)
        if copy.format is Format.RAW:
            self._files.free_holes(folder / copies.DATA)

    def _settle(self, call: Call, copy: Copy, place: Place) -> Copy:
        folder = place.partial
        data = folder / copies.DATA
        if not data.is_file():
            raise Damaged(f"the copy {place.id} of {copy.source} was never cut completely; take the snapshot again")
        self._files.sync(data)
        if copy.name.kind is CopyKind.SNAPSHOT:
            # A safety copy keeps what is there, and a damaged disk is a good reason for a restore.
            self._images.check(data, copy.format, call.check)
        backing = self._images.record_chain(data, copy.format, Path(copy.source).parent, call.check)
        done = copies.completed(copy, data.stat().st_size, backing)
        if done == copy:
            self._files.sync(copies.meta(folder))
        else:
            self._files.write(copies.meta(folder), copies.content(done))
        self._files.rename(folder, place.final)
        self._files.sync_shared(place.root)
        return done

    def _end_backup(self, call: Call, folder: Path) -> None:
        try:
            copy = copies.read(folder)
        except Damaged:
            return
        if copy.method is not Method.BACKUP or copy.socket is None:
            return
        socket, end = Path(copy.socket), time.monotonic() + _JOB_END_SECONDS
        try:
            if self._qemu.status(socket) is None:
                return
            while (job := self._qemu.job(socket, copy.job)) is not None and not job.ended:
                self._qemu.cancel_job(socket, copy.job)
                call.check()
                if time.monotonic() > end:
                    raise BackendError(f"QEMU does not end the job {copy.job}")
                time.sleep(_POLL_SECONDS / 10)
            if job is not None:
                self._qemu.dismiss_job(socket, copy.job)
            self._qemu.remove_target(socket, copy.job)
        except Unavailable:
            if self._qemu.status(socket) is not None:
                raise


def _disk(declaration: Declaration, volume_id: str) -> Disk:
    disk = declaration.disk(volume_id)
    if disk is None:
        raise Refused(f"instance '{declaration.name}' has no volume {volume_id}")
    return disk


def _method(declaration: Declaration, kind: CopyKind, *, off: bool) -> Method:
    if off:
        # The instance is off and fenced during a restore, and a restore puts another file in the disk's place.
        return Method.LINK if kind is CopyKind.SAFETY else Method.COPY
    if declaration.qmp_socket is None:
        raise Refused(f"'{declaration.name}' runs without a QMP socket; declare qmp_socket or shut it down")
    return Method.BACKUP


def _source(disk: Disk, nodes: Sequence[Node]) -> Node:
    for node in nodes:
        if node.top and same_file(node.file, disk.file):
            return node
    raise Refused(f"the running instance does not use {disk.path}; correct the declaration")


def _tick(call: Call) -> Any:
    def tick(done: int, total: int) -> None:
        call.check()
        call.report(done, total)

    return tick
