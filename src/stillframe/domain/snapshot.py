"""Instance snapshots, the volume snapshots they consist of, and what their cut achieved."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from stillframe.domain.disclosure import without_paths

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from stillframe.domain.omission import Omission
    from stillframe.domain.status import Status

_NAMESPACE: Final = uuid.UUID("6f0f3ad1-2d5b-5c53-9a54-0b9b3c1f7a10")


class ConsistencyLevel(StrEnum):
    """What a cut really achieved, best first."""

    APPLICATION = "application"
    FILESYSTEM = "filesystem"
    CRASH = "crash"
    NONE = "none"

    def reaches(self, minimum: ConsistencyLevel) -> bool:
        """Whether it is at least as good."""
        order = list(ConsistencyLevel)
        return order.index(self) <= order.index(minimum)


@dataclass(frozen=True, slots=True)
class Consistency:
    """What was achieved; `cut_window_ms` runs from the first to the last volume's cut.

    `reason`: why the level is no better, one sentence; None for the best one, and where it was not recorded. Every user
    sees it, so that it has no path of a host. `omissions` are what of the instance the level says nothing about, for no
    copy has it; None where that was not recorded.
    """

    level: ConsistencyLevel
    cut_window_ms: float
    reason: str | None = None
    omissions: tuple[Omission, ...] | None = None

    def __post_init__(self) -> None:
        if self.reason is not None:
            object.__setattr__(self, "reason", without_paths(self.reason))


@dataclass(frozen=True, slots=True)
class Fault:
    """The last failure of an instance snapshot, as every user sees it: its message has no path of a host."""

    code: str
    message: str
    created_at: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", without_paths(self.message))


class CopyKind(StrEnum):
    """Why a volume snapshot exists: it is the instance snapshot itself, or a safety copy before a restore."""

    SNAPSHOT = "snapshot"
    SAFETY = "safety"


@dataclass(frozen=True, slots=True)
class CopyName:
    """The key of one volume snapshot in the back end, made only of ids known before the call.

    `operation_id` is that of the operation that makes the copy: two restores never share a safety copy.
    """

    kind: CopyKind
    snapshot_id: str
    volume_id: str
    operation_id: str

    @property
    def uuid(self) -> str:
        """A deterministic id for back ends that let the caller choose it (name-based, RFC 9562 version 5)."""
        return str(uuid.uuid5(_NAMESPACE, f"{self.kind}/{self.snapshot_id}/{self.volume_id}/{self.operation_id}"))


@dataclass(frozen=True, slots=True)
class CopyReference:
    """What a copy is found by: its id, and where they are known, its volume's, and the name of the driver that has it.

    Records have no driver's name; whatever has just been seen in a back end has one where there are several drivers.
    """

    id: str
    volume_id: str | None = None
    driver: str | None = None


@dataclass(frozen=True, slots=True)
class VolumeSnapshot:
    """A volume snapshot or safety copy that exists in the back end; `ready` means that it can be restored from.

    `project_id`: whose it is, where that is for others than us to say; one of another project than its instance
    snapshot's only pretends to belong to it. `driver`: the name of the storage driver that has it, where there are
    several.
    """

    id: str
    name: CopyName
    size: int
    ready: bool
    project_id: str | None = None
    driver: str | None = None

    @property
    def reference(self) -> CopyReference:
        return CopyReference(self.id, self.name.volume_id, self.driver)

    def may_be_of(self, project_id: str | None) -> bool:
        """Whether it may belong to an instance snapshot of that project (None: nobody knows which)."""
        return self.project_id is None or project_id in (None, self.project_id)


@dataclass(frozen=True, slots=True)
class InstanceSnapshot:
    """One row of the product: a named set of volume snapshots of one instance.

    The three maps go from volume id to volume snapshot id. `task_id` and `action` name its latest operation.
    `minimum_consistency` is what was asked for; `untouched` are the volumes that a failed restore left as their safety
    copies are.
    """

    id: str
    project_id: str
    user_id: str
    instance_id: str
    name: str
    description: str
    status: Status
    created_at: datetime
    updated_at: datetime | None = None
    task_id: str | None = None
    action: str | None = None
    snapshots: Mapping[str, str] | None = None
    temp_snapshots: Mapping[str, str] | None = None
    failed_snapshots: Mapping[str, str] | None = None
    fault: Fault | None = None
    consistency: Consistency | None = None
    minimum_consistency: ConsistencyLevel = ConsistencyLevel.NONE
    untouched: frozenset[str] = frozenset()


def achieved(still: ConsistencyLevel, *, at_one_instant: bool) -> ConsistencyLevel:
    """What a cut is worth whose instance was held so still, and whose volumes were all cut at one instant or not."""
    return ConsistencyLevel.CRASH if still is ConsistencyLevel.NONE and at_one_instant else still


def too_little(level: ConsistencyLevel, reason: str | None, minimum: ConsistencyLevel) -> str:
    """In words that a level is not enough, and why it is no better."""
    why = reason or "nobody knows why"
    return f"Consistency level '{minimum}' is asked for, and no more than '{level}' is reached: {why}."
