"""The image files that are attached to instances, as whoever runs the guests says."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from stillframe.domain.errors import NotFound, NotSupported, Refused
from stillframe.domain.instance import Attachment, FileSource, Instance
from stillframe.drivers.image_files.error_translation import about
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.inventory import Inventory


@dataclass(frozen=True, slots=True)
class Disk:
    """One of them, and the instance that has it; `stated` is its format in the words of whoever runs the guest."""

    instance_id: str
    instance_name: str
    project_id: str
    volume_id: str
    name: str
    path: Path
    stated: str
    monitor: str | None
    bootable: bool

    @property
    def format(self) -> Format:
        """Its format; raises `NotSupported` for one of which no copies are made."""
        try:
            return Format(self.stated)
        except ValueError:
            raise NotSupported(f"It has the format '{self.stated}'; only raw and qcow2 images can be copied.") from None

    def about(self) -> AbstractContextManager[None]:
        """Have each error of the block say which disk it is about, see `error_translation.about`."""
        return about(self.instance_name, self.name, self.path)

    @property
    def file(self) -> Path:
        """The file itself, behind any symbolic links."""
        return Path(os.path.realpath(self.path))  # which a loop of links does not disturb


class Disks:
    """All of them at present, whatever else is attached to their instances."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    def all(self) -> list[Disk]:
        """Every disk; no instance is looked at for that."""
        return [
            _disk(one.instance_id, one.instance_name, one.project_id, one.attachment, one.attachment.source)
            for one in self._inventory.attached()
            if isinstance(one.attachment.source, FileSource)
        ]

    def volume(self, volume_id: str) -> Disk:
        """The disk behind a volume id; raises `NotFound`."""
        for disk in self.all():
            if disk.volume_id == volume_id:
                return disk
        raise NotFound(f"No image file with the volume id {volume_id} is attached to any instance.")


def require_attached_still(disk: Disk, present: Collection[Disk]) -> None:
    """Raises `Refused` for a disk that is not attached any more as it was when its instance was looked at."""
    if disk not in present:
        raise Refused("What is attached to the instance has been changed meanwhile; repeat it.")


def disks_of(instance: Instance) -> list[Disk]:
    """The disks of one instance, in boot order."""
    return [
        _disk(instance.id, instance.name, instance.project_id, one, one.source)
        for one in instance.attachments
        if isinstance(one.source, FileSource)
    ]


def disk_of(instance: Instance, volume_id: str) -> Disk:
    """The disk behind a volume of an instance; raises `Refused` if it has none such."""
    for disk in disks_of(instance):
        if disk.volume_id == volume_id:
            return disk
    raise Refused(
        f"Instance '{instance.name}' has no volume {volume_id} that is an image file; "
        "choose one that is attached to it."
    )


def _disk(instance_id: str, name: str, project_id: str, attachment: Attachment, source: FileSource) -> Disk:
    return Disk(
        instance_id=instance_id,
        instance_name=name,
        project_id=project_id,
        volume_id=attachment.volume_id,
        name=attachment.device,
        path=source.path,
        stated=source.format,
        monitor=source.monitor,
        bootable=attachment.bootable,
    )
