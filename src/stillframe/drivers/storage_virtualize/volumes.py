"""Which vdisk of which array a volume is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from stillframe.domain.instance import Volume
from stillframe.drivers.local.declaration import Declaration, Declarations, DeclaredVdisk
from stillframe.drivers.storage import StorageDriver
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

    def of_instance(self, instance_id: str) -> Sequence[str]:
        """See `Volumes`."""
        return [volume.id for volume in self._platform.list_volumes(None) if volume.instance_id == instance_id]

    def arrays_of(self, instance_id: str) -> frozenset[str] | None:  # noqa: ARG002 -- the platform does not know
        """See `Volumes`."""
        return None


class DeclaredVolumes:
    """The vdisks that the local driver's declarations name."""

    def __init__(self, declarations: Declarations, arrays: Arrays) -> None:
        self._declarations = declarations
        self._arrays = arrays

    def list_volumes(self, project_id: str | None) -> Sequence[Volume]:
        """See `StorageDriver`; what is on an array that does not answer is shown as `unknown`."""
        chosen = [
            (declaration, vdisk)
            for declaration in self._declarations.all()
            if project_id in (None, declaration.project_id)
            for vdisk in declaration.vdisks
        ]

        def look(array: Array) -> dict[str, Vdisk]:
            return array.vdisks({vdisk.vdisk for _, vdisk in chosen if vdisk.array in (None, array.name)})

        answers = self._arrays.ask(look, seconds=self._arrays.list_seconds)
        found = [_listed(declaration, vdisk, answers) for declaration, vdisk in chosen]
        return sorted(found, key=lambda volume: (volume.name, volume.id))

    def get_volume(self, volume_id: str) -> Volume:
        """See `StorageDriver`; as in the list of all."""
        declaration, declared = self._declarations.vdisk(volume_id)
        arrays = None if declared.array is None else self._arrays.named(frozenset({declared.array}))
        answers = self._arrays.ask(lambda array: array.vdisks({declared.vdisk}), arrays, self._arrays.list_seconds)
        return _listed(declaration, declared, answers)

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

    def of_instance(self, instance_id: str) -> Sequence[str]:
        """See `Volumes`."""
        declaration = self._declared(instance_id)
        return [declaration.volume_id(vdisk) for vdisk in declaration.vdisks] if declaration else []

    def arrays_of(self, instance_id: str) -> frozenset[str] | None:
        """See `Volumes`."""
        declaration = self._declared(instance_id)
        named = {vdisk.array for vdisk in declaration.vdisks} if declaration else {None}
        known = frozenset(name for name in named if name is not None and self._arrays.has(name))
        return known if len(known) == len(named) else None

    def _declared(self, instance_id: str) -> Declaration | None:
        return next((one for one in self._declarations.all() if one.id == instance_id), None)


def _listed(declaration: Declaration, declared: DeclaredVdisk, answers: Answers[dict[str, Vdisk]]) -> Volume:
    for name, vdisks in sorted(answers.given.items()):
        if declared.array in (None, name) and declared.vdisk in vdisks:
            return _volume(declaration, declared, "in-use", vdisks[declared.vdisk].size, name)
    unseen = answers.missing if declared.array is None else {declared.array} & answers.missing.keys()
    # It is still declared where the array does not have it, and the checks say so.
    return _volume(declaration, declared, "unknown" if unseen else "error")


def _volume(
    declaration: Declaration, declared: DeclaredVdisk, status: str, size: int = 0, array: str | None = None
) -> Volume:
    return Volume(
        id=declaration.volume_id(declared),
        project_id=declaration.project_id,
        name=f"{declaration.name}-{declared.name}",
        size=size,
        status=status,
        bootable=declared.bootable or declared is declaration.attached[0],
        instance_id=declaration.id,
        device=declared.name,
        backend=declared.array or array,
    )
