"""What was left behind, and whether it may go: pure functions of what was found and what the store knows about it.

A verdict of `REMOVE` never turns wrong with time. Operations that are final stay final, instance snapshots that are
gone stay gone, no two of them ever have the same id, and what an operation made is of use to none that begins later. So
two sweeps at a time, or one that is killed and repeated, do no harm. It holds too where the store was put back to an
earlier state: whatever was begun after that is unknown there, and of the unknown nothing is removed unasked.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from stillframe.domain.snapshot import CopyKind
from stillframe.domain.status import Status

if TYPE_CHECKING:
    from datetime import datetime

    from stillframe.domain.operation import Operation
    from stillframe.domain.snapshot import InstanceSnapshot, VolumeSnapshot

#: While an instance snapshot is in one of these, its instance must not run.
FENCING: Final = frozenset(
    {Status.RESTORING, Status.RESTORE_ERROR, Status.ROLLING_BACK, Status.ROLLBACK_ERROR}
    | {Status.DELETING, Status.ERROR_DELETING}
)
# While it is in one of these, no operation will ever ask for a copy of the kind that is not on show.
_USELESS: Final = {
    CopyKind.SNAPSHOT: frozenset({Status.ERROR}),
    CopyKind.SAFETY: frozenset({Status.AVAILABLE, Status.ERROR}),
}


class LeftoverKind(StrEnum):
    """What is left: a copy, a fence, a guest that is held still, the right to an instance, a draft of a driver's."""

    COPY = "copy"
    FENCE = "fence"
    QUIESCE = "quiesce"
    LOCK = "lock"
    DRAFT = "scrap"  # as metrics and the doctor have shown it from the beginning


class Verdict(StrEnum):
    """`KEEP`: it is somebody's. `REMOVE`: it is ours and nobody's. `ASK`: nobody's here, but perhaps another's."""

    KEEP = "keep"
    REMOVE = "remove"
    ASK = "ask"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What to do, and the reason in words for an operator."""

    verdict: Verdict
    why: str


@dataclass(frozen=True, slots=True)
class Owner:
    """What the store knows about the instance snapshot that something carries the id of.

    `snapshot`: its row, None where there is none. `project_id`: by the row, or else by its operations on record.
    `ended_at`: when the last of these ended, None where none is on record. `busy`: one of them is open, or still holds
    the instance.
    """

    snapshot: InstanceSnapshot | None
    project_id: str | None
    ended_at: datetime | None
    busy: bool

    @property
    def deleted(self) -> bool:
        """Whether it was ours and is deleted: a row and its first operation come into being together."""
        return self.snapshot is None and self.ended_at is not None


def judge_copy(copy: VolumeSnapshot, maker: Operation | None, owner: Owner, before: datetime) -> Judgement:
    """Whether a copy may go; `maker`: the operation whose id it carries, if that is on record.

    What ended later than `before` is too young to be judged: a call that came late may still be at it.
    """
    snapshot = owner.snapshot
    if owner.busy or (maker is not None and not maker.state.final):
        return Judgement(Verdict.KEEP, "it is being worked on")
    if snapshot is not None and not _useless(copy, snapshot):
        return Judgement(Verdict.KEEP, f"it belongs to an instance snapshot that is {snapshot.status}")
    if not copy.may_be_of(owner.project_id):
        return Judgement(Verdict.KEEP, "it only pretends to be ours: it lies in another project")
    if not owner.deleted and (maker is None or maker.snapshot_id != copy.name.snapshot_id):
        return Judgement(Verdict.ASK, _unknown(snapshot, maker))
    if _young(before, owner.ended_at, maker.finished_at if maker is not None else None):
        return Judgement(Verdict.KEEP, "the operation on its instance snapshot has only just ended")
    status = "deleted" if snapshot is None else f"{snapshot.status} without it"
    return Judgement(Verdict.REMOVE, f"its instance snapshot is {status}, and all operations on it have ended")


def judge_fence(owner: Owner, before: datetime) -> Judgement:
    """Whether a fence may go that stands for an instance snapshot."""
    snapshot = owner.snapshot
    if owner.busy or (snapshot is not None and snapshot.status in FENCING):
        return Judgement(Verdict.KEEP, "its instance must not run")
    if _young(before, owner.ended_at):
        return Judgement(Verdict.KEEP, "the operation on its instance snapshot has only just ended")
    if owner.deleted:
        return Judgement(Verdict.REMOVE, "the instance snapshot that it stands for is deleted")
    if snapshot is None:
        return Judgement(Verdict.ASK, "the instance snapshot that it stands for is unknown here")
    # After a restore that this store has been put back before, the volumes may be in pieces.
    return Judgement(Verdict.ASK, f"the instance snapshot that it stands for is {snapshot.status} and needs no fence")


def judge_lock(holder: Operation | None, before: datetime) -> Judgement:
    """Whether an instance may be given back that an operation holds (None: one that is not on record)."""
    if holder is None:
        return Judgement(Verdict.REMOVE, "the operation that holds it does not exist")
    if not holder.state.final or _young(before, holder.finished_at):
        return Judgement(Verdict.KEEP, "it is being worked on")
    return Judgement(
        Verdict.ASK, f"the {holder.action} that holds it ended at {holder.finished_at}; a call of it may still hang"
    )


def judge_draft(*, certain: bool, age: timedelta | None, grace: timedelta) -> Judgement:
    """Whether a draft may go that nobody holds; `certain`: its maker is gone.

    `age`: for how long it has been seen as it is, None for whoever looks only once.
    """
    if certain:
        return Judgement(Verdict.REMOVE, "a draft whose maker is gone")
    if (age or timedelta(0)) >= grace:
        return Judgement(Verdict.REMOVE, "an empty draft that nobody has touched")
    if age is None:
        return Judgement(Verdict.ASK, "an empty draft; only a service that runs can tell for how long it has been one")
    return Judgement(Verdict.KEEP, "somebody may just have made it")


def _useless(copy: VolumeSnapshot, snapshot: InstanceSnapshot) -> bool:
    shown = {**(snapshot.snapshots or {}), **(snapshot.temp_snapshots or {})}.values()
    return snapshot.status in _USELESS[copy.name.kind] and copy.id not in shown


def _young(before: datetime, *ends: datetime | None) -> bool:
    return any(end is not None and end > before for end in ends)


def _unknown(snapshot: InstanceSnapshot | None, maker: Operation | None) -> str:
    if maker is not None:
        return f"our {maker.action} {maker.id}, whose id it carries, was about another instance snapshot"
    if snapshot is not None:
        return f"its instance snapshot is {snapshot.status} without it, and no record says who made it"
    return (
        "neither its instance snapshot nor its operation is known here: perhaps another service's, or made later than "
        "the state of the database that was put back last"
    )
