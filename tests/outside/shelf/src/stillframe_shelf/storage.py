"""A volume is a file `volumes/ID`; a copy is a file `copies/ID` with its record `copies/ID.json`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stillframe.domain.errors import NotFound, Refused
from stillframe.domain.instance import Instance, Volume
from stillframe.domain.snapshot import CopyKind, CopyName, CopyReference, VolumeSnapshot
from stillframe.drivers.call import Call
from stillframe.drivers.compute import ComputeDriver
from stillframe.drivers.storage import Cut, PreparedCut, StorageCapabilities, require_attached


class ShelfStorage:
    """See `StorageDriver`. Cuts are made one after the other, so that a running guest has to be held still."""

    capabilities = StorageCapabilities(atomic_restore=True, copy_progress=True)

    def __init__(self, folder: Path, compute: ComputeDriver) -> None:
        self._volumes, self._copies = folder / "volumes", folder / "copies"
        self._compute = compute
        for one in (self._volumes, self._copies):
            one.mkdir(parents=True, exist_ok=True)

    def list_volumes(self, project_id: str | None) -> Sequence[Volume]:
        found = [one for instance in self._compute.list_instances(project_id) for one in self._of(instance)]
        return sorted(found, key=lambda one: (one.name, one.id))

    def get_volume(self, volume_id: str) -> Volume:
        for one in self.list_volumes(None):
            if one.id == volume_id:
                return one
        raise NotFound(f"no volume {volume_id}")

    def _of(self, instance: Instance) -> Iterator[Volume]:
        for at in instance.attachments:
            path = self._volumes / at.volume_id
            if path.is_file():
                name, size = f"{instance.name}-{at.device.rpartition('/')[2]}", path.stat().st_size
                yield Volume(
                    at.volume_id, instance.project_id, name, size, "in-use", at.bootable, instance.id, at.device
                )

    def check_cut(self, instance: Instance, volume_ids: Sequence[str]) -> None:
        for volume_id in volume_ids:
            if volume_id not in instance.volume_ids or not (self._volumes / volume_id).is_file():
                raise Refused(f"instance '{instance.name}' has no volume {volume_id}")

    def simultaneous(self, instance: Instance, volume_ids: Sequence[str]) -> bool:  # noqa: ARG002 -- of the port
        for volume_id in volume_ids:
            self.get_volume(volume_id)
        return False

    def prepare_cut(self, call: Call, instance: Instance, names: Sequence[CopyName]) -> None:
        """Nothing can be done beforehand."""

    def cut(
        self,
        call: Call,
        instance: Instance,
        names: Sequence[CopyName],
        prepared: PreparedCut | None = None,  # noqa: ARG002 -- nothing is prepared
    ) -> Cut:
        call.check()
        self.check_cut(instance, [name.volume_id for name in names])
        for name in names:
            shutil.copyfile(self._volumes / name.volume_id, self._copies / name.uuid)
            self._record(name, ready=False)
        return Cut(tuple(self._copy(name.uuid) for name in names), simultaneous=False, window_ms=1.0)

    def complete(self, call: Call, copy: CopyReference) -> VolumeSnapshot:
        call.check()
        made = self._copy(copy.id)
        with (self._copies / made.id).open("rb") as file:
            os.fsync(file.fileno())
        self._record(made.name, ready=True)
        call.report(made.size, made.size)
        return self._copy(made.id)

    def find(
        self,
        snapshot_id: str | None,
        instance_id: str | None = None,  # noqa: ARG002 -- of the port
        project_id: str | None = None,  # noqa: ARG002 -- of the port
    ) -> Sequence[VolumeSnapshot]:
        found = [self._copy(path.stem) for path in sorted(self._copies.glob("*.json"))]
        return [one for one in found if snapshot_id in (None, one.name.snapshot_id)]

    def check_restore(self, instance: Instance, copies: Mapping[str, str]) -> Mapping[str, str]:  # noqa: ARG002
        for volume_id, copy_id in copies.items():
            self._require_restorable(volume_id, copy_id)
        return dict.fromkeys(copies, "copy")

    def restore(self, call: Call, instance: Instance, volume_id: str, copy_id: str) -> None:
        call.check()
        require_attached(instance, volume_id)
        copy, volume = self._require_restorable(volume_id, copy_id), self._volumes / volume_id
        draft = volume.with_suffix(".restoring")
        shutil.copyfile(self._copies / copy.id, draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        with call.touching():
            draft.replace(volume)
        call.report(copy.size, copy.size)

    def release(self, call: Call, volume_id: str) -> None:  # noqa: ARG002 -- of the port
        """Nothing of an earlier restore goes on; its draft goes."""
        self.get_volume(volume_id)
        (self._volumes / volume_id).with_suffix(".restoring").unlink(missing_ok=True)

    def delete(self, call: Call, copy: CopyReference) -> None:
        call.check()
        for path in (self._copies / copy.id, self._copies / f"{copy.id}.json"):
            path.unlink(missing_ok=True)

    def _require_restorable(self, volume_id: str, copy_id: str) -> VolumeSnapshot:
        volume, copy = self.get_volume(volume_id), self._copy(copy_id)
        if copy.name.volume_id != volume_id or not copy.ready:
            raise Refused(f"{copy_id} is not a complete copy of volume {volume_id}")
        if volume.size != copy.size:
            raise Refused(f"volume {volume_id} has {volume.size} bytes and had {copy.size}; resize it back")
        return copy

    def _record(self, name: CopyName, *, ready: bool) -> None:
        path = self._copies / f"{name.uuid}.json"
        draft = path.with_suffix(".draft")
        named = [name.kind.value, name.snapshot_id, name.volume_id, name.operation_id]
        draft.write_text(json.dumps({"name": named, "ready": ready}))
        draft.replace(path)

    def _copy(self, copy_id: str) -> VolumeSnapshot:
        try:
            record = json.loads((self._copies / f"{copy_id}.json").read_text())
            size = (self._copies / copy_id).stat().st_size
        except FileNotFoundError:
            raise NotFound(f"no copy {copy_id}") from None
        kind, *rest = record["name"]
        return VolumeSnapshot(copy_id, CopyName(CopyKind(kind), *rest), size, record["ready"])
