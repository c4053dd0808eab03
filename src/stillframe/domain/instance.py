"""Instances and the volumes attached to them, as the drivers see them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


class PowerState(StrEnum):
    """Whether the guest may be writing to its volumes."""

    ACTIVE = "active"
    PAUSED = "paused"
    SHUTOFF = "shutoff"
    ERROR = "error"


class Source:
    """What a volume is where it lies; the compute driver says so, and the storage driver for its type sees to it.

    Drivers of other distributions have types of their own. None of it is shown to anybody.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class FileSource(Source):
    """An image file on this machine, in a format such as `raw` or `qcow2`.

    `monitor` is what the process that has it open, while its instance runs, is known by to `BlockJobs` of the compute
    driver's platform; None where nobody can ask it.
    """

    path: Path
    format: str
    monitor: str | None = None


@dataclass(frozen=True, slots=True)
class VdiskSource(Source):
    """A vdisk on an IBM Storage Virtualize array of the settings; without `array`, on the one that has the vdisk."""

    vdisk: str
    array: str | None = None


@dataclass(frozen=True, slots=True)
class CinderSource(Source):
    """A volume of the cloud's Cinder, which has the same id there."""


@dataclass(frozen=True, slots=True)
class MemorySource(Source):
    """A volume of the reference driver, which has the same id there."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """One volume as it is attached to one instance; `device` is what the guest sees, such as `/dev/vda`."""

    volume_id: str
    device: str
    source: Source
    bootable: bool = False


@dataclass(frozen=True, slots=True)
class Instance:
    """A virtual machine; `attachments` are in boot order. `locked`: its users do not want it changed for now.

    `host` is the machine that it runs on, where that is known. `unsettled`: why its volumes cannot be put back before
    something has been ended, and how, as a sentence; None where nothing is in the way. `local_disks`: the disks that it
    has besides its volumes, which no storage driver sees, by their kinds.
    """

    id: str
    project_id: str
    name: str
    power_state: PowerState
    attachments: tuple[Attachment, ...]
    created_at: datetime | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    locked: bool = False
    host: str | None = None
    unsettled: str | None = None
    local_disks: tuple[str, ...] = ()

    @property
    def volume_ids(self) -> tuple[str, ...]:
        return tuple(attachment.volume_id for attachment in self.attachments)

    def source(self, volume_id: str) -> Source | None:
        """What one of its volumes is, None for a volume that it does not have."""
        return next((one.source for one in self.attachments if one.volume_id == volume_id), None)


@dataclass(frozen=True, slots=True)
class Volume:
    """A block device of an instance; `size` is its virtual size in bytes, `backend` what holds it, where known."""

    id: str
    project_id: str
    name: str
    size: int
    status: str
    bootable: bool = False
    instance_id: str | None = None
    device: str | None = None
    created_at: datetime | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    backend: str | None = None
