"""Which vdisk of which array a volume is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stillframe.domain.errors import NotFound
from stillframe.domain.instance import Volume
from stillframe.drivers.local.declaration import Declaration, Declarations, DeclaredVdisk
from stillframe.drivers.storage import StorageDriver
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.objects import Vdisk


@dataclass(frozen=True, slots=True)
class Place:
    """A volume's vdisk, and its array where that is known beforehand."""

    vdisk: str
    array: str | None


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

    def volume_on(self, array: str, vdisk: str) -> str | None:
        """The id of the volume that a vdisk is, or None."""
        ...

    def ids(self) -> Sequence[str]:
        """The ids of all volumes that there are."""
        ...


class Arrays:
    """All arrays of the settings."""

    def __init__(self, arrays: Sequence[Array]) -> None:
        self._arrays = {array.name: array for array in arrays}

    def all(self) -> Sequence[Array]:
        return list(self._arrays.values())

    def find(self, place: Place) -> tuple[Array, Vdisk] | None:
        """The array that has the vdisk, or None; raises `NotFound` for an array that the settings do not have."""
        if place.array is not None and place.array not in self._arrays:
            raise NotFound(f"the settings have no array '{place.array}'")
        chosen = self.all() if place.array is None else [self._arrays[place.array]]
        for array in chosen:
            vdisk = array.vdisk(place.vdisk)
            if vdisk is not None:
                return array, vdisk
        return None


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
        return Place(self._template % self._platform.get_volume(volume_id).id, None)

    def volume_on(self, array: str, vdisk: str) -> str | None:  # noqa: ARG002 -- the template holds for all arrays
        """See `Volumes`."""
        begin, _, end = self._template.partition("%s")
        if not (vdisk.startswith(begin) and vdisk.endswith(end)):
            return None
        return vdisk[len(begin) : len(vdisk) - len(end)]

    def ids(self) -> Sequence[str]:
        """See `Volumes`."""
        return [volume.id for volume in self._platform.list_volumes(None)]


class DeclaredVolumes:
    """The vdisks that the local driver's declarations name."""

    def __init__(self, declarations: Declarations, arrays: Arrays) -> None:
        self._declarations = declarations
        self._arrays = arrays

    def list_volumes(self, project_id: str | None) -> Sequence[Volume]:
        """See `StorageDriver`."""
        found = [
            self._volume(declaration, vdisk)
            for declaration in self._declarations.all()
            if project_id in (None, declaration.project_id)
            for vdisk in declaration.vdisks
        ]
        return sorted(found, key=lambda volume: (volume.name, volume.id))

    def get_volume(self, volume_id: str) -> Volume:
        """See `StorageDriver`."""
        return self._volume(*self._declarations.vdisk(volume_id))

    def place(self, volume_id: str) -> Place:
        """See `Volumes`."""
        _declaration, vdisk = self._declarations.vdisk(volume_id)
        return Place(vdisk.vdisk, vdisk.array)

    def volume_on(self, array: str, vdisk: str) -> str | None:
        """See `Volumes`."""
        for declaration in self._declarations.all():
            for declared in declaration.vdisks:
                if declared.vdisk == vdisk and declared.array in (None, array):
                    return declaration.volume_id(declared)
        return None

    def ids(self) -> Sequence[str]:
        """See `Volumes`."""
        return [
            declaration.volume_id(vdisk) for declaration in self._declarations.all() for vdisk in declaration.vdisks
        ]

    def _volume(self, declaration: Declaration, declared: DeclaredVdisk) -> Volume:
        found = self._arrays.find(Place(declared.vdisk, declared.array))
        return Volume(
            id=declaration.volume_id(declared),
            project_id=declaration.project_id,
            name=f"{declaration.name}-{declared.name}",
            # It is still declared where the array does not have it, and the checks say so.
            size=found[1].size if found else 0,
            status="in-use" if found else "error",
            bootable=declared.bootable or declared is declaration.attached[0],
            instance_id=declaration.id,
            device=declared.name,
            backend=declared.array or (found[0].name if found else None),
        )
