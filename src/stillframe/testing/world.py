"""The world that a driver is tried in: it adds instances, and reads and writes their disks as a guest would."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from stillframe.domain.instance import Instance
from stillframe.domain.snapshot import CopyKind, CopyName, VolumeSnapshot
from stillframe.drivers.call import Call
from stillframe.drivers.compute import ComputeDriver
from stillframe.drivers.storage import StorageDriver

MIB = 1 << 20
SIZE = 8 * MIB

#: Ids of an instance snapshot and of an operation; drivers may count on their being UUIDs.
SNAPSHOT = "0b6f4f0e-35ab-4cf5-8f83-1d5e7b1f7a01"
OPERATION = "5a2d9c47-7c0b-4a39-9a4f-0c6f2b8e7d02"


@dataclass
class Watched:
    """A call that keeps what was reported and can be made to interrupt."""

    reports: list[tuple[int, int]] = field(default_factory=list)
    interruption: Exception | None = None
    touched: bool = False

    def call(self, operation_id: str = "operation") -> Call:
        return Call(
            operation_id,
            "request",
            self._check,
            lambda done, total: self.reports.append((done, total)),
            touch=self._touch,
        )

    def _touch(self) -> None:
        self.touched = True

    def _check(self) -> None:
        if self.interruption is not None:
            raise self.interruption


def a_call() -> Call:
    return Watched().call()


class World(ABC):
    storage: StorageDriver
    compute: ComputeDriver

    @abstractmethod
    def add(self, sizes: Sequence[int] = (SIZE,), project_id: str = "project") -> Instance:
        """A new instance that is off, with one disk a size."""

    def size(self, asked: int) -> int:
        """The size that a disk has for which this one is asked."""
        return asked

    def project(self, name: str) -> str:
        """The id of a project."""
        return name

    @abstractmethod
    def forget(self, instance: Instance) -> None:
        """The instance is not known to the platform any more."""

    @abstractmethod
    def lose(self, volume_id: str) -> None:
        """The disk vanishes."""

    @abstractmethod
    def resize(self, volume_id: str, size: int) -> None:
        """The disk gets another size."""

    @abstractmethod
    def read(self, volume_id: str) -> bytes:
        """All bytes as a guest reads them."""

    @abstractmethod
    def write(self, volume_id: str, offset: int, data: bytes) -> None:
        """Write as a guest does; the instance may run."""

    def names(
        self, instance: Instance, snapshot_id: str | None = None, kind: CopyKind = CopyKind.SNAPSHOT
    ) -> list[CopyName]:
        chosen = snapshot_id or str(uuid.uuid4())
        return [CopyName(kind, chosen, volume_id, OPERATION) for volume_id in instance.volume_ids]

    def snapshot(
        self, instance: Instance, snapshot_id: str | None = None, kind: CopyKind = CopyKind.SNAPSHOT
    ) -> list[VolumeSnapshot]:
        """The whole way: check, cut while it is quiesced, complete."""
        call = a_call()
        self.storage.check_cut(instance, instance.volume_ids)
        names = self.names(instance, snapshot_id, kind)
        prepared = self.storage.prepare_cut(call, instance, names)
        with self.compute.quiesced(call, instance.id):
            cut = self.storage.cut(call, instance, names, prepared)
        return [self.storage.complete(call, one.reference) for one in cut.snapshots]


def pattern(number: int, size: int = SIZE) -> bytes:
    """Bytes that differ in every sector and for every number."""
    return b"".join(f"{number:8}{sector:8}".encode().ljust(512, b".") for sector in range(size // 512))
