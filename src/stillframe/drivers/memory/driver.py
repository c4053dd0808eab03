"""The reference driver: instances, volumes and copies in dictionaries; what it does is what the ports mean."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from stillframe.domain.errors import BackendError, Conflict, NotFound, OutOfSpace, Refused
from stillframe.domain.instance import Attachment, Instance, MemorySource, PowerState, Volume
from stillframe.domain.snapshot import ConsistencyLevel, CopyName, CopyReference, VolumeSnapshot
from stillframe.drivers.call import Call
from stillframe.drivers.compute import ComputeCapabilities, Stillness, fenced_message
from stillframe.drivers.storage import Cut, PreparedCut, StorageCapabilities, require_attached


@dataclass(frozen=True, slots=True)
class _Copy:
    name: CopyName
    content: bytes
    ready: bool = False
    project_id: str | None = None
    pretended: str | None = None

    def described(self) -> VolumeSnapshot:
        own = self.pretended or self.name.uuid
        return VolumeSnapshot(own, self.name, len(self.content), self.ready, self.project_id)


class MemoryDriver:
    """One small world with a driver for each port, `compute` and `storage`; safe to use from threads.

    `room` bounds the bytes of all copies (None: endless).
    """

    def __init__(self, room: int | None = None) -> None:
        self.lock = threading.RLock()
        self.room = room
        self.instances: dict[str, Instance] = {}
        self.volumes: dict[str, Volume] = {}
        self.contents: dict[str, bytearray] = {}
        self.copies: dict[str, _Copy] = {}
        self.fences: dict[str, str] = {}
        self.held: set[str] = set()
        self.compute = MemoryCompute(self)
        self.storage = MemoryStorage(self)

    def add_instance(
        self, project_id: str, name: str, sizes: Sequence[int], power_state: PowerState = PowerState.SHUTOFF
    ) -> Instance:
        """A new instance with one zeroed volume for each size in bytes."""
        instance_id = str(uuid.uuid4())
        attachments = []
        with self.lock:
            for number, size in enumerate(sizes):
                volume_id, device = str(uuid.uuid4()), f"/dev/vd{chr(ord('a') + number)}"
                boot = number == 0
                attachments.append(Attachment(volume_id, device, MemorySource(), bootable=boot))
                self.contents[volume_id] = bytearray(size)
                self.volumes[volume_id] = Volume(
                    volume_id, project_id, f"{name}-{number}", size, "in-use", boot, instance_id, device
                )
            self.instances[instance_id] = Instance(instance_id, project_id, name, power_state, tuple(attachments))
            return self.instances[instance_id]

    def remove_instance(self, instance_id: str) -> None:
        """The instance and its volumes vanish, as if somebody had deleted them; copies stay."""
        with self.lock:
            for volume_id in self.instances.pop(instance_id).volume_ids:
                self.remove_volume(volume_id)

    def remove_volume(self, volume_id: str) -> None:
        """The volume vanishes, even if it is attached."""
        with self.lock:
            self.volumes.pop(volume_id, None)
            self.contents.pop(volume_id, None)

    def read(self, volume_id: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of a volume, to its end without a length."""
        with self.lock:
            content = self.contents[volume_id]
            return bytes(content[offset : len(content) if length is None else offset + length])

    def write(self, volume_id: str, offset: int, data: bytes) -> None:
        """Put bytes into a volume, as its guest would."""
        with self.lock:
            self.contents[volume_id][offset : offset + len(data)] = data

    def resize(self, volume_id: str, size: int) -> None:
        """Cut a volume off, or lengthen it with zeroes."""
        with self.lock:
            self.contents[volume_id] = bytearray(bytes(self.contents[volume_id])[:size].ljust(size, b"\0"))
            self.volumes[volume_id] = replace(self.volumes[volume_id], size=size)

    def pretend(self, name: CopyName, project_id: str) -> str:
        """Somebody in a project gives a complete copy of theirs a name of ours; its id."""
        own = str(uuid.uuid4())
        with self.lock:
            self.copies[own] = _Copy(name, b"pretended", ready=True, project_id=project_id, pretended=own)
        return own

    def set_power_state(self, instance_id: str, power_state: PowerState) -> None:
        """Switch an instance, as its user would."""
        with self.lock:
            self.instances[instance_id] = replace(self.instances[instance_id], power_state=power_state)


class MemoryCompute:
    """The compute port of a `MemoryDriver`; a guest that is held still is `held` in its world."""

    def __init__(self, world: MemoryDriver) -> None:
        self._world = world

    @property
    def capabilities(self) -> ComputeCapabilities:
        return ComputeCapabilities(power_control=True, quiesce=ConsistencyLevel.APPLICATION)

    def list_instances(self, project_id: str | None) -> Sequence[Instance]:
        with self._world.lock:
            found = [one for one in self._world.instances.values() if project_id in (None, one.project_id)]
        return sorted(found, key=lambda one: (one.name, one.id))

    def get_instance(self, instance_id: str) -> Instance:
        with self._world.lock:
            if instance_id not in self._world.instances:
                raise NotFound(f"There is no instance {instance_id}.")
            return self._world.instances[instance_id]

    def outlook(self, instance_id: str) -> Stillness:
        return _stillness(self.get_instance(instance_id).power_state)

    @contextmanager
    def quiesced(self, call: Call, instance_id: str) -> Iterator[Stillness]:
        call.check()
        before = self.get_instance(instance_id).power_state
        if before is PowerState.ACTIVE:
            self._world.held.add(instance_id)
        try:
            yield _stillness(before)
            still = before is not PowerState.ACTIVE or instance_id in self._world.held
        finally:
            self._world.held.discard(instance_id)
        if not still or self.get_instance(instance_id).power_state is not before:
            raise BackendError(f"Instance {instance_id} did not stay still; repeat the cut.")

    def release(self, instance_id: str) -> None:
        self._world.held.discard(instance_id)

    def check_power(self, instance_id: str, wanted: PowerState) -> None:
        """Every instance can be switched."""

    def start(self, call: Call, instance_id: str) -> None:
        call.check()
        with self._world.lock:
            self.get_instance(instance_id)
            owner = self._world.fences.get(instance_id)
            if owner is not None:
                raise Refused(fenced_message(f"Instance {instance_id}", owner))
            self._world.set_power_state(instance_id, PowerState.ACTIVE)

    def stop(self, call: Call, instance_id: str, graceful_seconds: float) -> None:  # noqa: ARG002 -- it is off at once
        call.check()
        with self._world.lock:
            self.get_instance(instance_id)
            self._world.set_power_state(instance_id, PowerState.SHUTOFF)

    def fence(self, instance_id: str, owner: str) -> None:
        with self._world.lock:
            self.get_instance(instance_id)
            holder = self._world.fences.setdefault(instance_id, owner)
        if holder != owner:
            raise Conflict(fenced_message(f"Instance {instance_id}", holder))

    def unfence(self, instance_id: str, owner: str) -> None:
        with self._world.lock:
            if self._world.fences.get(instance_id) == owner:
                del self._world.fences[instance_id]

    def fenced_by(self, instance_id: str) -> str | None:
        return self._world.fences.get(instance_id)

    def fences(self) -> Mapping[str, str]:
        with self._world.lock:
            return dict(self._world.fences)

    def hold(self, instance_id: str) -> tuple[PowerState, str | None]:
        with self._world.lock:
            return self.get_instance(instance_id).power_state, self.fenced_by(instance_id)


def _stillness(state: PowerState) -> Stillness:
    if state is PowerState.ACTIVE:
        return Stillness(ConsistencyLevel.APPLICATION)
    return Stillness(ConsistencyLevel.CRASH, "the instance does not run, and nothing is known of how it went off")


class MemoryStorage:
    """The storage port of a `MemoryDriver`."""

    def __init__(self, world: MemoryDriver) -> None:
        self._world = world

    @property
    def capabilities(self) -> StorageCapabilities:
        return StorageCapabilities(atomic_restore=True, copy_progress=True)

    def list_volumes(self, project_id: str | None) -> Sequence[Volume]:
        with self._world.lock:
            found = [one for one in self._world.volumes.values() if project_id in (None, one.project_id)]
        return sorted(found, key=lambda one: (one.name, one.id))

    def get_volume(self, volume_id: str) -> Volume:
        with self._world.lock:
            if volume_id not in self._world.volumes:
                raise NotFound(f"There is no volume {volume_id}.")
            return self._world.volumes[volume_id]

    def check_cut(self, instance: Instance, volume_ids: Sequence[str]) -> None:
        with self._world.lock:
            for volume_id in volume_ids:
                if volume_id not in instance.volume_ids or volume_id not in self._world.contents:
                    raise Refused(
                        f"Instance '{instance.name}' has no volume {volume_id}; choose one that is attached to it."
                    )
            self._make_room(volume_ids)

    def simultaneous(self, instance: Instance, volume_ids: Sequence[str]) -> bool:  # noqa: ARG002 -- of the port
        return True

    def prepare_cut(self, call: Call, instance: Instance, names: Sequence[CopyName]) -> None:
        """Nothing here takes any time."""

    def cut(
        self,
        call: Call,
        instance: Instance,
        names: Sequence[CopyName],
        prepared: PreparedCut | None = None,  # noqa: ARG002 -- of the port
    ) -> Cut:
        call.check()
        with self._world.lock:
            for name in names:
                self._world.copies.pop(name.uuid, None)
            self.check_cut(instance, [name.volume_id for name in names])
            made = [_Copy(name, bytes(self._world.contents[name.volume_id])) for name in names]
            self._world.copies.update({copy.name.uuid: copy for copy in made})
        return Cut(tuple(copy.described() for copy in made), simultaneous=True, window_ms=0.0)

    def complete(self, call: Call, copy: CopyReference) -> VolumeSnapshot:
        call.check()
        with self._world.lock:
            made = self._world.copies[copy.id] = replace(self._copy(copy.id), ready=True)
        call.report(len(made.content), len(made.content))
        return made.described()

    def find(
        self,
        snapshot_id: str | None,
        instance_id: str | None = None,  # noqa: ARG002 -- of the port
        project_id: str | None = None,  # noqa: ARG002 -- of the port
    ) -> Sequence[VolumeSnapshot]:
        with self._world.lock:
            found = [one.described() for one in self._world.copies.values()]
        return [one for one in found if snapshot_id in (None, one.name.snapshot_id)]

    def check_restore(self, instance: Instance, copies: Mapping[str, str]) -> Mapping[str, str]:  # noqa: ARG002
        for volume_id, copy_id in copies.items():
            self._require_restorable(volume_id, copy_id)
        return dict.fromkeys(copies, "copy")

    def _require_restorable(self, volume_id: str, copy_id: str) -> None:
        with self._world.lock:
            copy, size = self._copy(copy_id), self.get_volume(volume_id).size
        if copy.name.volume_id != volume_id or not copy.ready:
            raise Refused(f"{copy_id} is not a complete copy of volume {volume_id}; choose another instance snapshot.")
        if size != len(copy.content):
            raise Refused(f"Volume {volume_id} has {size} bytes and had {len(copy.content)}; resize it back.")

    def restore(self, call: Call, instance: Instance, volume_id: str, copy_id: str) -> None:
        call.check()
        require_attached(instance, volume_id)
        with self._world.lock:
            self._require_restorable(volume_id, copy_id)
            content = self._copy(copy_id).content
            with call.touching():
                self._world.contents[volume_id] = bytearray(content)
        call.report(len(content), len(content))

    def release(self, call: Call, volume_id: str) -> None:
        """See `StorageDriver`: a restore is over in an instant."""

    def delete(self, call: Call, copy: CopyReference) -> None:
        call.check()
        with self._world.lock:
            self._world.copies.pop(copy.id, None)

    def _copy(self, copy_id: str) -> _Copy:
        if copy_id not in self._world.copies:
            raise NotFound(f"There is no copy {copy_id}.")
        return self._world.copies[copy_id]

    def _make_room(self, volume_ids: Sequence[str]) -> None:
        taken = sum(len(copy.content) for copy in self._world.copies.values())
        need = taken + sum(len(self._world.contents[volume_id]) for volume_id in volume_ids)
        if self._world.room is not None and need > self._world.room:
            raise OutOfSpace(
                f"All copies would have {need} bytes, and there is room for {self._world.room}; delete some."
            )
