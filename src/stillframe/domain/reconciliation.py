"""What becomes of an instance snapshot when an older state of the database is accepted: a pure function.

What the older state says was true once. What may be done from now on follows from what the platform has: its copies,
and whether it still keeps the instance off for the sake of a restore to this snapshot. If it does not, that restore has
ended since, and what the guest has written after it must not be overwritten by a retry or a rollback.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stillframe.domain.errors import OlderDatabase
from stillframe.domain.snapshot import CopyKind
from stillframe.domain.status import BUSY, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stillframe.domain.snapshot import InstanceSnapshot, VolumeSnapshot

_RESTORES: Final = frozenset({Status.RESTORE_ERROR, Status.ROLLBACK_ERROR})
_OLDER: Final = "An older state of the service's database was put back"
_HALF_RESTORED: Final = (
    f"{_OLDER}. A restore to this snapshot has begun and has not ended: the instance is fenced for it."
)

Maps = Mapping[str, Mapping[str, str] | None]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the platform has of an instance snapshot.

    `copies`: all that carry its id and can be restored from. `fenced`: whether the platform keeps the instance off for
    its sake. `wanted`: the volumes that it was to be of, where its creation had not ended.
    """

    copies: Sequence[VolumeSnapshot] = ()
    fenced: bool = False
    wanted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Change:
    """What an instance snapshot becomes, and why, in words for its owner; `fenced`: its fence has to be on record."""

    snapshot: InstanceSnapshot
    status: Status
    why: str
    maps: Maps
    fenced: bool = False


def reconcile(snapshot: InstanceSnapshot, evidence: Evidence) -> Change | None:
    """How to change it; None where what is on record still holds."""
    if snapshot.status in BUSY or snapshot.status is Status.ERROR_DELETING:
        # Begun after the older state was put back; or to be deleted, which looks for itself.
        return None
    if snapshot.status is Status.ERROR:
        return _failed_then(snapshot, evidence)
    there = {copy.id for copy in evidence.copies}
    kept = {volume: copy_id for volume, copy_id in (snapshot.snapshots or {}).items() if copy_id in there}
    whole = bool(kept) and kept == dict(snapshot.snapshots or {})
    safe = _safety_copies(snapshot.snapshots or {}, evidence)
    if evidence.fenced and whole:
        return _half_restored(snapshot, kept, safe)
    if whole:
        return _released_since(snapshot, there)
    why = f"{_OLDER}, and copies that it names are not there any more; {len(kept)} of them are left."
    if evidence.fenced and safe is not None:
        maps: Maps = {"snapshots": kept or None, "temp_snapshots": safe, "failed_snapshots": None}
        return Change(snapshot, Status.ROLLBACK_ERROR, why, maps, fenced=True)
    maps = {"snapshots": kept or None, "temp_snapshots": None, "failed_snapshots": None}
    return Change(snapshot, Status.ERROR, why, maps, fenced=evidence.fenced)


def _failed_then(snapshot: InstanceSnapshot, evidence: Evidence) -> Change | None:
    """What keeps its instance off has been restored to since, so that its creation had come to its end before."""
    copies = _created_since(snapshot, evidence)
    if evidence.fenced and copies is None:
        return Change(snapshot, Status.ERROR, _HALF_RESTORED, {}, fenced=True)
    if copies is None:
        return None
    if evidence.fenced:
        maps: Maps = {
            "snapshots": copies,
            "failed_snapshots": copies,
            "temp_snapshots": _safety_copies(copies, evidence),
        }
        return Change(snapshot, Status.RESTORE_ERROR, _HALF_RESTORED, maps, fenced=True)
    why = (
        f"{_OLDER}, in which this was being created. All of its copies are there; how consistent they are is not on "
        "record."
    )
    return Change(snapshot, Status.AVAILABLE, why, {"snapshots": copies})


def _created_since(snapshot: InstanceSnapshot, evidence: Evidence) -> Mapping[str, str] | None:
    """A cut that was under way has come to its end since, if each volume has its copy, all by one operation."""
    if snapshot.fault is None or snapshot.fault.code != OlderDatabase.code or not evidence.wanted:
        return None
    made = [
        copy
        for copy in evidence.copies
        if copy.name.kind is CopyKind.SNAPSHOT and copy.name.operation_id == snapshot.task_id
    ]
    copies = {copy.name.volume_id: copy.id for copy in made}
    # Of two copies of one volume nobody knows which is of the same instant as the others.
    return copies if copies.keys() == evidence.wanted and len(copies) == len(made) else None


def _half_restored(
    snapshot: InstanceSnapshot, kept: Mapping[str, str], safe: Mapping[str, str] | None
) -> Change | None:
    if snapshot.status in _RESTORES and safe is not None and dict(snapshot.temp_snapshots or {}) == dict(safe):
        return None
    maps: Maps = {"failed_snapshots": kept, "temp_snapshots": safe}
    return Change(snapshot, Status.RESTORE_ERROR, _HALF_RESTORED, maps, fenced=True)


def _released_since(snapshot: InstanceSnapshot, there: set[str]) -> Change | None:
    if snapshot.status not in _RESTORES:
        return None
    left = {volume: copy_id for volume, copy_id in (snapshot.temp_snapshots or {}).items() if copy_id in there}
    why = (
        f"{_OLDER}, in which a restore to this snapshot had failed or not ended. That is over: the instance is not "
        "fenced for it any more, and may have written since."
    )
    return Change(snapshot, Status.AVAILABLE, why, {"failed_snapshots": None, "temp_snapshots": left or None})


def _safety_copies(volumes: Mapping[str, str], evidence: Evidence) -> dict[str, str] | None:
    """By volume, if all are there once, and of one operation only; else nobody knows which are the right ones."""
    made = [copy for copy in evidence.copies if copy.name.kind is CopyKind.SAFETY]
    found = {copy.name.volume_id: copy.id for copy in made}
    if len({copy.name.operation_id for copy in made}) != 1 or len(found) != len(made):
        return None
    return found if found.keys() >= volumes.keys() else None
