"""Making copies: the cut, which is over in an instant, and the completion, which may take its time."""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from stillframe.domain.errors import BackendError, Damaged, OutOfSpace, Refused, Unavailable
from stillframe.domain.instance import Instance, PowerState
from stillframe.domain.snapshot import CopyKind, CopyName, VolumeSnapshot
from stillframe.drivers.block_jobs import Backup, Below, BlockJobs, Node
from stillframe.drivers.call import Call
from stillframe.drivers.compute import ComputeDriver
from stillframe.drivers.files.copies import Copies, mount_of
from stillframe.drivers.files.disks import Disk, Disks, disk_of, disks_of, require_attached_still
from stillframe.drivers.files.images import Images
from stillframe.drivers.files.records import DATA, Copy, Method, Stage
from stillframe.drivers.image_files import opening
from stillframe.drivers.image_files.alone import Alone, alone, require_open_in_qemu
from stillframe.drivers.image_files.blocks import Tick
from stillframe.drivers.image_files.error_translation import translated
from stillframe.drivers.image_files.files import Files, names_in
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.image_files.looking import any_written, same_file
from stillframe.drivers.storage import Cut

_POLL_SECONDS: Final = 0.2
_JOB_END_SECONDS: Final = 30.0
# What a file system without hard links says, and what one says that has no more of them for this file.
_CANNOT_LINK: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


@dataclass(frozen=True, slots=True)
class _Plan:
    copy: Copy
    disk: Disk
    source: opening.File
    alone: Alone | None


class Cutter:
    """Cuts, completes and drops copies."""

    def __init__(
        self, files: Files, images: Images, jobs: BlockJobs, books: Copies, disks: Disks, compute: ComputeDriver
    ) -> None:
        self._files = files
        self._images = images
        self._jobs = jobs
        self._books = books
        self._disks = disks
        self._compute = compute
        self._records = books.records

    def cut(self, call: Call, instance: Instance, names: Sequence[CopyName]) -> Cut:
        """Fix the content of one disk a name; copies that earlier attempts left are put aside, not used."""
        with translated("cutting the disks"), ExitStack() as held:
            plans = self._plans(instance, names, held)
            for plan in plans:
                with self._records.turn(call, plan.copy):
                    self._begin(call, plan.copy)
            backups = self._targets(plans)
            first = time.monotonic()
            last = first
            for plan in plans:
                last = self._fix(call, plan) or last
            for plan in plans:
                if plan.alone is not None:
                    with plan.disk.about():
                        plan.alone.finish()
            monitor = plans[0].copy.socket if backups else None
            if monitor is not None:
                self._jobs.start_backups(monitor, backups)
                last = time.monotonic()
        return Cut(
            snapshots=tuple(plan.copy.snapshot() for plan in plans),
            simultaneous=bool(backups) and len(backups) == len(plans),
            # One transaction is one instant, however long QEMU takes to answer.
            window_ms=0.0 if len(backups) == len(plans) else (last - first) * 1000,
        )

    def complete(self, call: Call, copy_id: str) -> VolumeSnapshot:
        """Make a cut copy durable and check it; may be repeated whatever happened before."""
        copy = self._records.get(copy_id)
        with translated(f"completing the copy {copy_id}"):
            if copy.stage is not Stage.READY:
                if copy.method is Method.BACKUP:
                    self._await_backup(call, copy)
                copy = self._settle(call, copy)
            if copy.method is Method.BACKUP and copy.socket:
                self._jobs.dismiss_job(copy.socket, copy.job)
            self._files.remove_folder(copy.aside)
        call.report(copy.size, copy.size)
        return copy.snapshot()

    def remove(self, call: Call, copy: Copy) -> None:
        """Remove a copy: what is on record of it goes last, so that this can be repeated."""
        with self._records.turn(call, copy):
            self._end_backup(call, copy)
            if copy.stage is not Stage.GOING:
                self._records.write(replace(copy, stage=Stage.GOING))
            for folder in (copy.folder, copy.aside):
                self._files.remove_folder(folder)
            if Path(copy.root).is_dir():
                self._files.sync_shared(Path(copy.root))
            self._records.remove(copy)

    def _plans(self, instance: Instance, names: Sequence[CopyName], held: ExitStack) -> list[_Plan]:
        disks = [disk_of(instance, name.volume_id) for name in names]
        present = self._disks.all()
        sources = []
        for disk in disks:
            with disk.about():
                require_attached_still(disk, present)
                sources.append(held.enter_context(opening.file(disk.path)))
                self._books.require_replaceable(sources[-1])
        clones = {folder: self._files.can_clone(folder) for folder in {one.folder.path for one in sources}}
        # Asked again: a hard link to the disk of an instance that runs after all would follow every write.
        written = any_written([disk.file for disk in disks_of(instance)])
        off = not written and self._compute.get_instance(instance.id).power_state is PowerState.SHUTOFF
        plans = []
        for disk, name, source in zip(disks, names, sources, strict=True):
            clone = clones[source.folder.path]
            method = Method.CLONE if clone else self._method(disk, name.kind, off=off)
            with disk.about():
                guard = held.enter_context(alone(source)) if off else None
            plans.append(_Plan(self._copy(disk, name, method, source), disk, source, guard))
        return plans

    def _method(self, disk: Disk, kind: CopyKind, *, off: bool) -> Method:
        if off:
            # The instance is off and fenced during a restore, and a restore puts another file in the disk's place.
            return Method.LINK if kind is CopyKind.SAFETY else Method.COPY
        if disk.monitor is None:
            words = self._jobs.words
            raise Refused(f"Instance '{disk.instance_name}' runs, and {words.silent}; {words.answer}, or shut it down.")
        return Method.BACKUP

    def _source(self, disk: Disk, nodes: Sequence[Node]) -> Node:
        for node in nodes:
            if node.top and same_file(node.file, disk.file):
                return node
        raise Refused(
            f"The running instance does not use disk '{disk.name}' any more, or an overlay covers it: "
            f"{self._jobs.words.merge}, or correct which file is attached."
        )

    def _copy(self, disk: Disk, name: CopyName, method: Method, source: opening.File) -> Copy:
        root = self._books.root(source.path)
        return Copy(
            name=name,
            source=str(source.path),
            format=disk.format,
            method=method,
            size=self._images.shape(source, disk.format).size,
            root=str(root),
            mount=mount_of(root.parent),
            socket=disk.monitor,
            # A raw disk's file is all there is to know; asking about a chain takes a program, and a guest may wait.
            file_size=source.found.st_size if disk.format is Format.RAW else None,
            backing=self._images.glance(source.path) if disk.format is Format.QCOW2 else (),
        )

    def _begin(self, call: Call, copy: Copy) -> None:
        """Put aside, quickly, what an earlier cut of this name made; the record comes before anything on the disk."""
        earlier = self._records.find(copy.id)
        if earlier is not None:
            self._end_backup(call, earlier)
        self._records.write(copy, durably=False)
        if copy.folder.is_dir():
            self._files.remove_folder(copy.aside)
            self._files.rename_folder(copy.folder, copy.aside)
        self._files.make_folder_beside(copy.folder)

    def _fix(self, call: Call, plan: _Plan) -> float | None:
        method = plan.copy.method
        if method is Method.LINK:
            try:
                self._files.link(plan.source.fd, plan.copy.data)
            except OSError as problem:
                if problem.errno not in _CANNOT_LINK:
                    raise
                method = Method.COPY
                with self._records.turn(call, plan.copy):
                    self._records.write(replace(plan.copy, method=method), durably=False)
        if method in (Method.CLONE, Method.COPY):
            self._draw(call, plan, clone=method is Method.CLONE)
        return None if method is Method.BACKUP else time.monotonic()

    def _draw(self, call: Call, plan: _Plan, *, clone: bool) -> None:
        """Copy into a draft, so that a half-made copy has no data, and data that are there are nobody else's."""
        draft = self._files.draft(plan.copy.folder, f"{DATA}.{secrets.token_hex(4)}", plan.source.fd)
        try:
            if clone:
                self._files.clone(plan.source.fd, draft)
            else:
                self._files.copy(plan.source.fd, draft, _tick(call, plan.alone))
            self._files.place(draft, DATA)
        finally:
            draft.close()

    def _targets(self, plans: Sequence[_Plan]) -> list[Backup]:
        # One process has all disks of an instance open.
        monitor, wanted = plans[0].disk.monitor, [plan for plan in plans if plan.copy.method is Method.BACKUP]
        if monitor is None or all(plan.alone is not None for plan in plans):
            return []
        if not wanted and not self._jobs.listens(monitor):
            return []
        # However it is copied: what the guest writes to is what is cut, also if an overlay came a moment ago.
        nodes = self._jobs.nodes(monitor)
        sources = [self._source(plan.disk, nodes) for plan in plans]
        for plan in plans:
            with plan.disk.about():
                require_open_in_qemu(plan.source)
        return [
            self._target(monitor, plan, source)
            for plan, source in zip(plans, sources, strict=True)
            if plan.copy.method is Method.BACKUP
        ]

    def _target(self, monitor: str, plan: _Plan, source: Node) -> Backup:
        raw, data = plan.disk.format is Format.RAW, plan.copy.data
        self._files.create(data, plan.copy.size if raw else 0, plan.source.fd, reserve=raw)
        below: Below | None = None
        if not raw:
            shape = self._images.shape(plan.source, plan.disk.format)
            like = self._images.require_rebuildable(plan.source)
            with self._images.layers(plan.source, plan.disk.format, plan.disk.file.parent) as layers:
                stored = (shape.backing, layers[0].format.value) if shape.backing and layers else None
                self._images.create(data, plan.copy.size, like, stored)
                if layers:
                    below = Below(layers[0].named, layers[0].format.value)
        with opening.file(data, os.O_RDWR, links=False) as writing, opening.file(data, links=False) as reading:
            # By descriptor: QEMU may run as another user, who may not enter our folders.
            self._jobs.add_target(monitor, plan.copy.job, (writing.fd, reading.fd), plan.disk.format.value, below)
        # The copy has the same files below it as the disk, so only the disk's own layer is copied.
        return Backup(plan.copy.job, source.name, "top" if below else "full")

    def _await_backup(self, call: Call, copy: Copy) -> None:
        monitor = copy.socket or ""
        while True:
            call.check()
            job = self._jobs.job(monitor, copy.job)
            if job is None:
                raise Damaged(
                    f"The copy of volume {copy.name.volume_id} was not complete when its QEMU process ended; "
                    "take the snapshot again."
                )
            if job.total:
                call.report(min(job.done, job.total), job.total)
            if job.ended:
                break
            time.sleep(_POLL_SECONDS)
        could_not = f"QEMU could not copy volume {copy.name.volume_id}"
        if job.error and os.strerror(errno.ENOSPC) in job.error:
            raise OutOfSpace(f"{could_not}: {job.error}; make room and take the snapshot again.")
        if job.error:
            raise Damaged(f"{could_not}: {job.error}; take the snapshot again.")
        self._jobs.remove_target(monitor, copy.job)
        if copy.format is Format.RAW:
            # QEMU counts in sectors; the disk's own size is the one that holds.
            self._files.fit(copy.data, copy.size)

    def _settle(self, call: Call, copy: Copy) -> Copy:
        if DATA not in (found := names_in(copy.folder)):
            raise Damaged(f"The copy {copy.id} was never cut completely; take the snapshot again.")
        for name in found:
            if name != DATA:
                # The draft of an attempt that was killed, where drafts need names.
                self._files.remove_beside(copy.folder / name)
        self._files.sync(copy.data)
        if copy.name.kind is CopyKind.SNAPSHOT:
            # A safety copy keeps what is there, and a damaged disk is a good reason for a restore.
            self._images.check(copy.data, copy.format, call.check)
        backing = self._images.record_chain(copy.data, copy.format, Path(copy.source).parent, call.check)
        seen = {below.stamp for below in copy.backing}
        if seen and not all(below.stamp in seen for below in backing):
            raise Damaged(
                f"An image below the copy of volume {copy.name.volume_id} was written to or replaced while the copy "
                "was made; take the snapshot again."
            )
        with opening.file(copy.data, links=False) as data:
            done = replace(copy, stage=Stage.READY, file_size=data.found.st_size, backing=backing)
        self._files.sync(copy.folder)
        self._files.sync_shared(Path(copy.root))
        with self._records.turn(call, copy):
            self._records.write(done)
        return done

    def _end_backup(self, call: Call, copy: Copy) -> None:
        if copy.method is not Method.BACKUP or copy.socket is None:
            return
        monitor, end = copy.socket, time.monotonic() + _JOB_END_SECONDS
        try:
            if not self._jobs.listens(monitor):
                return
            while (job := self._jobs.job(monitor, copy.job)) is not None and not job.ended:
                self._jobs.cancel_job(monitor, copy.job)
                call.check()
                if time.monotonic() > end:
                    raise BackendError(
                        f"The instance's process does not end the job {copy.job}; {self._jobs.words.cancel}."
                    )
                time.sleep(_POLL_SECONDS / 10)
            if job is not None:
                self._jobs.dismiss_job(monitor, copy.job)
            self._jobs.remove_target(monitor, copy.job)
        except Unavailable:
            if self._jobs.listens(monitor):
                raise


def _tick(call: Call, alone: Alone | None) -> Tick:
    def tick(done: int, total: int) -> None:
        call.check()
        if alone is not None:
            alone.check()
        call.report(done, total)

    return tick
