"""The storage driver for volumes on IBM Storage Virtualize arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final, cast

from stillframe.domain.errors import NotFound, Refused, StillframeError
from stillframe.domain.instance import Instance, Volume
from stillframe.domain.snapshot import CopyName, CopyReference, VolumeSnapshot
from stillframe.drivers.call import Call
from stillframe.drivers.problems import Problem, Problems
from stillframe.drivers.storage import Cut, PreparedCut, StorageCapabilities
from stillframe.drivers.storage_virtualize.array_snapshots import ArraySnapshots, Member
from stillframe.drivers.storage_virtualize.arrays import Arrays
from stillframe.drivers.storage_virtualize.books import Books, Wanted
from stillframe.drivers.storage_virtualize.checks import Checks, Found
from stillframe.drivers.storage_virtualize.copies import Copies, Copy
from stillframe.drivers.storage_virtualize.cutting import Cutter
from stillframe.drivers.storage_virtualize.deleting import Deleter
from stillframe.drivers.storage_virtualize.options import Options
from stillframe.drivers.storage_virtualize.restoring import Restorer
from stillframe.drivers.storage_virtualize.roles import Roles
from stillframe.drivers.storage_virtualize.together import Crowd, Crowds
from stillframe.drivers.storage_virtualize.volumes import Volumes

# A restored volume reads as its copy from the start of the reverse mapping on, whatever happens to us.
_CAPABILITIES: Final = StorageCapabilities(atomic_restore=True, copy_progress=True)


class StorageVirtualize(Problems):
    """Volumes are vdisks; copies are vdisks behind FlashCopy mappings, or parts of snapshots of the array."""

    def __init__(self, options: Options, arrays: Arrays, volumes: Volumes) -> None:
        self._volumes = volumes
        copies = Copies(volumes)
        self._checks = Checks(arrays, volumes)
        self._roles = Roles(options.strategy)
        self._arrays = arrays
        self._deleter = Deleter(options.poll_seconds)
        self._cutter = Cutter(options, copies, self._deleter)
        self._snapshots = ArraySnapshots(options, volumes, self._checks)
        self._books = Books(arrays, volumes, copies, self._snapshots)
        self._restorer = Restorer(options, self._checks)
        self._crowds = Crowds(options.poll_seconds)

    @property
    def capabilities(self) -> StorageCapabilities:
        return _CAPABILITIES

    def problems(self) -> Iterator[Problem]:
        """See `Problems`: what is wrong with the service's user on the arrays."""
        yield from self._roles.problems(self._arrays)

    def list_volumes(self, project_id: str | None) -> Sequence[Volume]:
        """See `StorageDriver`."""
        return self._volumes.list_volumes(project_id)

    def get_volume(self, volume_id: str) -> Volume:
        """See `StorageDriver`."""
        return self._volumes.get_volume(volume_id)

    def check_cut(self, instance: Instance, volume_ids: Sequence[str]) -> None:
        """See `StorageDriver`."""
        for volume_id in volume_ids:
            if volume_id not in instance.volume_ids:
                raise Refused(
                    f"Instance '{instance.name}' has no volume {volume_id}; choose one that is attached to it."
                )
        found = self._checks.sources(instance, volume_ids).values()
        self._roles.require(array for array, _ in found)
        self._snapshots.chosen(list(found))

    def simultaneous(self, instance: Instance, volume_ids: Sequence[str]) -> bool:
        """See `StorageDriver`: where they are on one array."""
        return len({array.name for array, _ in self._checks.located(instance, volume_ids).values()}) == 1

    def prepare_cut(self, call: Call, instance: Instance, names: Sequence[CopyName]) -> PreparedCut:
        """See `StorageDriver`: everything but the start of the consistency groups."""
        found = self._checks.sources(instance, [name.volume_id for name in names])
        self._roles.require(array for array, _ in found.values())
        sources = {name: found[name.volume_id] for name in names}
        way = self._snapshots if self._snapshots.chosen(list(sources.values())) else self._cutter
        return way.prepare(call, sources)

    def cut(
        self, call: Call, instance: Instance, names: Sequence[CopyName], prepared: PreparedCut | None = None
    ) -> Cut:
        """See `StorageDriver`."""
        return (prepared or self.prepare_cut(call, instance, names))(call)

    def complete(self, call: Call, copy: CopyReference) -> VolumeSnapshot:
        """See `StorageDriver`."""
        with self._crowds.joined(call) as crowd:
            found = self._look(call, crowd, copy.id)
            if found is None:
                raise NotFound(f"There is no copy {copy.id} on any array.")
            if isinstance(found, Member):
                return self._snapshots.complete(call, crowd, found)
            return self._cutter.complete(call, crowd, found)

    def find(
        self,
        snapshot_id: str | None,
        instance_id: str | None = None,
        project_id: str | None = None,  # noqa: ARG002 -- of the port
    ) -> Sequence[VolumeSnapshot]:
        """See `StorageDriver`."""
        return self._books.find(snapshot_id, instance_id)

    def check_restore(self, instance: Instance, copies: Mapping[str, str]) -> Mapping[str, str]:
        """See `StorageDriver`."""
        wanted = [self._wanted(instance, volume_id, copy_id) for volume_id, copy_id in copies.items()]
        outcomes = self._books.to_restore(wanted)
        self._roles.require(one.copy.array for one in outcomes.values() if not isinstance(one, StillframeError))
        return {one.volume_id: self._check_restore(one.volume_id, outcomes[one]) for one in wanted}

    def _wanted(self, instance: Instance, volume_id: str, copy_id: str) -> Wanted:
        return Wanted(volume_id, copy_id, self._volumes.place_of(instance, volume_id))

    def _check_restore(self, volume_id: str, outcome: Found[Copy | Member] | StillframeError) -> str:
        if isinstance(outcome, StillframeError):
            raise outcome
        if isinstance(outcome.copy, Member):
            self._snapshots.check_restore(cast("Found[Member]", outcome))
            return "array-snapshot"
        self._checks.restore(volume_id, cast("Found[Copy]", outcome))
        return "flashcopy"

    def restore(self, call: Call, instance: Instance, volume_id: str, copy_id: str) -> None:
        """See `StorageDriver`."""
        wanted = self._wanted(instance, volume_id, copy_id)
        with self._crowds.joined(call) as crowd:
            found = crowd.ask("to restore", wanted, self._books.to_restore)
            if found is None or isinstance(found, StillframeError):
                raise found or NotFound(f"There is no copy {copy_id} on any array.")
            if isinstance(found.copy, Member):
                self._snapshots.restore(call, crowd, cast("Found[Member]", found))
            else:
                self._restorer.restore(call, crowd, volume_id, cast("Found[Copy]", found))

    def release(self, call: Call, volume_id: str) -> None:
        """See `StorageDriver`: a volume can be read and written from the moment its restore began."""

    def delete(self, call: Call, copy: CopyReference) -> None:
        """See `StorageDriver`."""
        with self._crowds.joined(call) as crowd:
            found = self._look(call, crowd, copy.id)
            if isinstance(found, Member):
                self._snapshots.delete(call, crowd, found)
            elif found is not None:
                self._deleter.delete(call, crowd, found)

    def _look(self, call: Call, crowd: Crowd, copy_id: str) -> Copy | Member | None:
        return crowd.ask("copies", copy_id, partial(self._books.of_call, call))
