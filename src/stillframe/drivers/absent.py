"""A storage driver beside others that are installed and not chosen, whose volumes and copies may be there still."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from stillframe.domain.errors import NotFound, Refused
from stillframe.domain.instance import Instance, Source, Volume
from stillframe.domain.snapshot import CopyName, CopyReference, VolumeSnapshot
from stillframe.drivers.call import Call
from stillframe.drivers.compute import ComputeDriver
from stillframe.drivers.storage import Cut, PartOnly, PreparedCut, StorageCapabilities, StorageDriver


@dataclass(frozen=True, slots=True)
class Absent:
    """A storage driver that is not chosen: its name, the sources that are its own, and the copies that it has here."""

    name: str
    serves: tuple[type[Source], ...]
    kept: Callable[[], Sequence[VolumeSnapshot]]

    def seen(self) -> list[VolumeSnapshot]:
        """The copies, with the name of the driver."""
        return [replace(copy, driver=self.name) for copy in self.kept()]

    def refusal(self, what: str) -> Refused:
        """Nothing can be done with what lies with it."""
        return Refused(
            f"{what} lies with the storage driver '{self.name}', which is not among those of the settings; name it in "
            "[drivers] storage, too."
        )


@dataclass(frozen=True, slots=True)
class BesideAbsent(StorageDriver):
    """See `StorageDriver`: nothing that lies with an absent driver is taken for something that is not there.

    `name`: what the copies of `driver` are told by that have no name of a driver yet. `serves`: the sources that are
    its own; of a volume of another kind it is asked whether it has it.
    """

    driver: StorageDriver
    name: str
    serves: tuple[type[Source], ...]
    absent: tuple[Absent, ...]
    compute: ComputeDriver

    @property
    def capabilities(self) -> StorageCapabilities:
        return self.driver.capabilities

    def list_volumes(self, project_id: str | None) -> Sequence[Volume]:
        return self.driver.list_volumes(project_id)

    def get_volume(self, volume_id: str) -> Volume:
        return self.driver.get_volume(volume_id)

    def check_cut(self, instance: Instance, volume_ids: Sequence[str]) -> None:
        self._require_present(instance, volume_ids)
        self.driver.check_cut(instance, volume_ids)

    def simultaneous(self, instance: Instance, volume_ids: Sequence[str]) -> bool:
        return self.driver.simultaneous(instance, volume_ids)

    def prepare_cut(self, call: Call, instance: Instance, names: Sequence[CopyName]) -> PreparedCut | None:
        return self.driver.prepare_cut(call, instance, names)

    def cut(
        self, call: Call, instance: Instance, names: Sequence[CopyName], prepared: PreparedCut | None = None
    ) -> Cut:
        cut = self.driver.cut(call, instance, names, prepared)
        return replace(cut, snapshots=tuple(map(self._seen, cut.snapshots)))

    def complete(self, call: Call, copy: CopyReference) -> VolumeSnapshot:
        return self._seen(self.driver.complete(call, copy))

    def find(
        self, snapshot_id: str | None, instance_id: str | None = None, project_id: str | None = None
    ) -> Sequence[VolumeSnapshot]:
        """See `StorageDriver`: with the copies that lie with the absent."""
        others = [copy for one in self.absent for copy in one.seen() if snapshot_id in (None, copy.name.snapshot_id)]
        try:
            found = self.driver.find(snapshot_id, instance_id, project_id)
        except PartOnly as part:
            raise PartOnly(part.message, [*map(self._seen, part.found), *others]) from None
        return sorted([*map(self._seen, found), *others], key=lambda copy: copy.id)

    def check_restore(self, instance: Instance, copies: Mapping[str, str]) -> Mapping[str, str]:
        self._require_present(instance, copies)
        return self.driver.check_restore(instance, copies)

    def restore(self, call: Call, instance: Instance, volume_id: str, copy_id: str) -> None:
        self.driver.restore(call, instance, volume_id, copy_id)

    def release(self, call: Call, volume_id: str) -> None:
        self.driver.release(call, volume_id)

    def delete(self, call: Call, copy: CopyReference) -> None:
        """See `StorageDriver`; one that nobody has seen is gone only if its volume does not lie with an absent one."""
        owner = next((one for one in self.absent if one.name == copy.driver), None)
        if owner is not None:
            raise owner.refusal(f"The copy {copy.id}")
        instance = self._instance(call) if copy.driver is None else None
        if instance is not None and copy.volume_id is not None:
            self._require_present(instance, [copy.volume_id])
        self.driver.delete(call, copy)

    def _seen(self, copy: VolumeSnapshot) -> VolumeSnapshot:
        return copy if copy.driver is not None else replace(copy, driver=self.name)

    def _instance(self, call: Call) -> Instance | None:
        """The instance that a call is about, or None where nobody can say (any more) what its volumes are."""
        try:
            return None if call.instance_id is None else self.compute.get_instance(call.instance_id)
        except (NotFound, Refused):
            return None

    def _require_present(self, instance: Instance, volume_ids: Iterable[str]) -> None:
        for volume_id in volume_ids:
            source = instance.source(volume_id)
            owner = next((one for one in self.absent if isinstance(source, one.serves)), None)
            if owner is not None and not isinstance(source, self.serves) and not self._has(volume_id):
                raise owner.refusal(f"Volume {volume_id}")

    def _has(self, volume_id: str) -> bool:
        """Whether the driver sees to a volume: one that is used alone may see to those of another one's kind."""
        try:
            self.driver.get_volume(volume_id)
        except NotFound:
            return False
        return True
