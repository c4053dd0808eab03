"""Which vdisk of which array a volume is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from stillframe.domain.errors import NotFound, Refused
from stillframe.domain.instance import Instance, VdiskSource, Volume
from stillframe.drivers.inventory import Attached, Inventory
from stillframe.drivers.storage import StorageDriver, require_attached
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.arrays import Answers, Arrays, Place
from stillframe.drivers.storage_virtualize.objects import Vdisk


class Volumes(Protocol):
    """Where volumes are declared that lie on arrays."""

    def list_volumes(self, project_id: str | None) -> Sequence[Volume]:
        """See `StorageDriver`."""
        ...

    def get_volume(self, volume_id: str) -> Volume:
        """See `StorageDriver`."""
        ...

    def place(self, volume_id: str) -> Place:
        """The vdisk that a volume has to be; raises `NotFound` for an unknown volume."""
        ...

    def place_of(self, instance: Instance, volume_id: str) -> Place:
        """The vdisk that a volume of an instance has to be, as the instance says.

        Raises `NotFound` for a volume that it does not have, and `Refused` for one that is another vdisk by now.
        """
        ...

    def volume_on(self, array: str, vdisk: str) -> str | None:
        """The id of the volume that a vdisk is, or None."""
        ...

    def ids(self) -> Sequence[str]:
        """The ids of all volumes that there are."""
        ...

    def of_instance(self, instance_id: str) -> Sequence[str]:
        """The ids of the volumes of an instance; none for one that is not known."""
        ...

    def arrays_of(self, instance_id: str) -> frozenset[str] | None:
        """The names of the arrays that an instance's volumes lie on, or None where that is not said beforehand."""
        ...


class ManagedVolumes:
    """The volumes of a platform such as Cinder, which names them on the array by a template of their id."""

    def __init__(self, platform: StorageDriver, template: str) -> None:
        self._platform = platform
        self._template = template

    def list_volumes(self, project_id: str | None) -> Sequence[Volume]:
        """See `StorageDriver`."""
        return self._platform.list_volumes(project_id)

    def get_volume(self, volume_id: str) -> Volume:
        """See `StorageDriver`."""
        return self._platform.get_volume(volume_id)

    def place(self, volume_id: str) -> Place:
        """See `Volumes`."""
        return self._place(self._platform.get_volume(volume_id).id)

    def place_of(self, instance: Instance, volume_id: str) -> Place:
        """See `Volumes`: the id says it, which no volume changes."""
        require_attached(instance, volume_id)
        return self._place(volume_id)

    def _place(self, volume_id: str) -> Place:
        return Place(self._template % volume_id, None)

    def volume_on(self, array: str, vdisk: str) -> str | None:  # noqa: ARG002 -- the template holds for all arrays
        """See `Volumes`."""
        begin, _, end = self._template.partition("%s")
        if not (vdisk.startswith(begin) and vdisk.endswith(end)):
            return None
        return vdisk[len(begin) : len(vdisk) - len(end)]

    def ids(self) -> Sequence[str]:
        """See `Volumes`."""
        return [volume.id for volume in self._platform.list_volumes(None)]

    def of_instance(self, instance_id: str) -> Sequence[str]:
        """See `Volumes`."""
        return [volume.id for volume in self._platform.list_volumes(None) if volume.instance_id == instance_id]

    def arrays_of(self, instance_id: str) -> frozenset[str] | None:  # noqa: ARG002 -- the platform does not know
        """See `Volumes`."""
        return None


class DeclaredVolumes:
    """The vdisks that are declared with the instances that have them."""

    def __init__(self, inventory: Inventory, arrays: Arrays) -> None:
        self._inventory = inventory
        self._arrays = arrays

    def list_volumes(self, project_id: str | None) -> Sequence[Volume]:
        """See `StorageDriver`; what is on an array that does not answer is shown as `unknown`."""
        chosen = [one for one in self._vdisks() if project_id in (None, one[0].project_id)]

        def look(array: Array) -> dict[str, Vdisk]:
            return array.vdisks({source.vdisk for _, source in chosen if source.array in (None, array.name)})

        answers = self._arrays.ask(look, seconds=self._arrays.list_seconds)
        found = [_listed(attached, source, answers) for attached, source in chosen]
        return sorted(found, key=lambda volume: (volume.name, volume.id))

    def get_volume(self, volume_id: str) -> Volume:
        """See `StorageDriver`; as in the list of all."""
        attached, source = self._vdisk(volume_id)
        arrays = None if source.array is None else self._arrays.named(frozenset({source.array}))
        answers = self._arrays.ask(lambda array: array.vdisks({source.vdisk}), arrays, self._arrays.list_seconds)
        return _listed(attached, source, answers)

    def place(self, volume_id: str) -> Place:
        """See `Volumes`."""
        _attached, source = self._vdisk(volume_id)
        return Place(source.vdisk, source.array)

    def place_of(self, instance: Instance, volume_id: str) -> Place:
        """See `Volumes`."""
        source = require_attached(instance, volume_id)
        if not isinstance(source, VdiskSource):
            raise Refused(f"Volume {volume_id} of instance '{instance.name}' is no vdisk; choose another one.")
        present = [(one.instance_id, one.attachment.volume_id, now) for one, now in self._vdisks()]
        if (instance.id, volume_id, source) not in present:
            raise Refused("What is attached to the instance has been changed meanwhile; repeat it.")
        return Place(source.vdisk, source.array)

    def volume_on(self, array: str, vdisk: str) -> str | None:
        """See `Volumes`."""
        for attached, source in self._vdisks():
            if source.vdisk == vdisk and source.array in (None, array):
                return attached.attachment.volume_id
        return None

    def ids(self) -> Sequence[str]:
        """See `Volumes`."""
        return [attached.attachment.volume_id for attached, _ in self._vdisks()]

    def of_instance(self, instance_id: str) -> Sequence[str]:
        """See `Volumes`."""
        return [one.attachment.volume_id for one, _ in self._vdisks() if one.instance_id == instance_id]

    def arrays_of(self, instance_id: str) -> frozenset[str] | None:
        """See `Volumes`."""
        if all(one.instance_id != instance_id for one in self._inventory.attached()):
            return None
        named = {source.array for one, source in self._vdisks() if one.instance_id == instance_id}
        known = frozenset(name for name in named if name is not None and self._arrays.has(name))
        return known if len(known) == len(named) else None

    def _vdisks(self) -> list[tuple[Attached, VdiskSource]]:
        return [
            (one, one.attachment.source)
            for one in self._inventory.attached()
            if isinstance(one.attachment.source, VdiskSource)
        ]

    def _vdisk(self, volume_id: str) -> tuple[Attached, VdiskSource]:
        for attached, source in self._vdisks():
            if attached.attachment.volume_id == volume_id:
                return attached, source
        raise NotFound(f"No instance has a vdisk with the volume id {volume_id}.")


def _listed(attached: Attached, source: VdiskSource, answers: Answers[dict[str, Vdisk]]) -> Volume:
    for name, vdisks in sorted(answers.given.items()):
        if source.array in (None, name) and source.vdisk in vdisks:
            return _volume(attached, source, "in-use", vdisks[source.vdisk].size, name)
    unseen = answers.missing if source.array is None else {source.array} & answers.missing.keys()
    # It is still declared where the array does not have it, and the checks say so.
    return _volume(attached, source, "unknown" if unseen else "error")


def _volume(attached: Attached, source: VdiskSource, status: str, size: int = 0, array: str | None = None) -> Volume:
    attachment = attached.attachment
    return Volume(
        id=attachment.volume_id,
        project_id=attached.project_id,
        name=f"{attached.instance_name}-{attachment.device}",
        size=size,
        status=status,
        bootable=attachment.bootable,
        instance_id=attached.instance_id,
        device=attachment.device,
        backend=source.array or array,
    )
