"""The port to whatever holds volumes.

Every method may be repeated after a crash or a lost reply with the same outcome. Besides the errors named, every method
may raise `Unavailable` (worth trying again) and `BackendError` (not).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from stillframe.domain.errors import NotFound, Unavailable
from stillframe.domain.instance import Instance, Source, Volume
from stillframe.domain.snapshot import CopyName, CopyReference, VolumeSnapshot
from stillframe.drivers.call import Call


@dataclass(frozen=True, slots=True)
class StorageCapabilities:
    """What a storage driver can do; tests and flows ask this, never the driver's name.

    `atomic_restore`: a restore killed half way leaves the volume either as it was or restored, never in between.
    `copy_progress`: `complete` and `restore` report bytes while they copy.
    """

    atomic_restore: bool
    copy_progress: bool


@dataclass(frozen=True, slots=True)
class Cut:
    """The outcome of `StorageDriver.cut`.

    `simultaneous`: all volumes were cut at one instant by the back end itself, so that not even a running guest could
    write between them. `window_ms` runs from the first to the last volume's cut.
    """

    snapshots: tuple[VolumeSnapshot, ...]
    simultaneous: bool
    window_ms: float


#: What is left of a cut that its driver has prepared. Only that driver knows what is in it.
PreparedCut: TypeAlias = Callable[[Call], Cut]


class PartOnly(Unavailable):
    """A part of the back end does not answer; `found` is what the others have."""

    def __init__(self, message: str, found: Sequence[VolumeSnapshot]) -> None:
        super().__init__(message)
        self.found = found


def require_attached(instance: Instance, volume_id: str) -> Source:
    """What a volume of an instance is; raises `NotFound` for one that it does not have."""
    source = instance.source(volume_id)
    if source is None:
        raise NotFound(f"No volume {volume_id} is attached to instance '{instance.name}'.")
    return source


class StorageDriver(Protocol):
    """Volumes: cutting them at one instant, restoring them in place, and keeping the books of the copies."""

    @property
    def capabilities(self) -> StorageCapabilities: ...

    def list_volumes(self, project_id: str | None) -> Sequence[Volume]:
        """The volumes of a project (None: of all), by name and id."""
        ...

    def get_volume(self, volume_id: str) -> Volume:
        """One volume; raises `NotFound`."""
        ...

    def check_cut(self, instance: Instance, volume_ids: Sequence[str]) -> None:
        """Say before anything is touched whether a cut of these volumes can be made.

        Raises `Refused` (missing or changed disk, not possible while running, ...), `NotSupported`, `OutOfSpace`,
        `TooLarge` (a quota).
        """
        ...

    def simultaneous(self, instance: Instance, volume_ids: Sequence[str]) -> bool:
        """Whether a cut of these volumes will be `Cut.simultaneous`, as far as that can be told beforehand.

        Raises `NotFound`.
        """
        ...

    def prepare_cut(self, call: Call, instance: Instance, names: Sequence[CopyName]) -> PreparedCut | None:
        """Do what a cut of these names can have done beforehand, while the guest still runs; often nothing (None).

        What it returns is for that cut; the driver itself keeps nothing from one call to the next. A cut may come
        without it, and it may come without a cut: then `find` lists what it made, and `delete` removes it. Raises as
        `check_cut`.
        """
        ...

    def cut(
        self, call: Call, instance: Instance, names: Sequence[CopyName], prepared: PreparedCut | None = None
    ) -> Cut:
        """Fix the present content of one volume a name. Called once for all volumes, with the guest held still.

        `prepared` is what `prepare_cut` returned for these names, if it was called.

        Does only what must happen at the instant; slow work belongs into `complete`. On an error it may leave copies
        behind, which `find` lists and `delete` removes; it never completes copies that an earlier call left. Raises
        `OutOfSpace`.
        """
        ...

    def complete(self, call: Call, copy: CopyReference) -> VolumeSnapshot:
        """Wait until a cut copy is durable and can be restored from, and check it; reports bytes copied.

        One that `cut` said to be ready is, and needs none of this.

        Raises `Damaged` if the copy cannot become ready, `NotFound`.
        """
        ...

    def find(
        self, snapshot_id: str | None, instance_id: str | None = None, project_id: str | None = None
    ) -> Sequence[VolumeSnapshot]:
        """Every copy of ours that belongs to an instance snapshot (None: all of ours), the half-made ones too.

        `instance_id` is whose snapshot it is, where that is known: what its volumes do not lie on need not answer.
        `project_id` likewise: copies that lie in a project of neither its nor ours need not be looked for.
        Raises `PartOnly` where a part of the back end does not answer that may have more of them.
        """
        ...

    def check_restore(self, instance: Instance, copies: Mapping[str, str]) -> Mapping[str, str]:
        """Say before anything is touched whether these volumes can be put back together, and for each in a word how.

        `copies` goes from volume id to copy id. Asked at the request, and again inside the fence: before a running
        instance is shut down, and when it is off. Raises `NotFound` (volume or copy), `Refused` (changed size, backing
        chain, missing disk, a disk that something else depends on), `OutOfSpace` (for all of them), `Damaged`.
        """
        ...

    def restore(self, call: Call, instance: Instance, volume_id: str, copy_id: str) -> None:
        """Put the volume's content back to the copy's, durably; the copy itself and all other copies stay as they are.

        The instance is off and fenced, and says what the volume is; where that is not so any more at the instant, the
        volume is left alone. It keeps its id and attachment. Reports bytes copied. The request that begins to change
        the volume is made within `call.touching()`. Raises as `check_restore`.
        """
        ...

    def release(self, call: Call, volume_id: str) -> None:
        """Give a volume back after restores that broke off: it can be used and cut again, whatever it holds.

        Waits while one of them still runs in the back end. Nothing happens to a volume that is as it should be. It is
        named by its id alone, for its instance may be gone. Raises `NotFound`.
        """
        ...

    def delete(self, call: Call, copy: CopyReference) -> None:
        """Remove one copy and everything that was made for it; one that is gone already is fine."""
        ...
