"""How an operation is settled, by what came of its flow: one pure function, whether the flow ended or broke off."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeAlias, assert_never

from stillframe.domain.arguments import Action, RestoreArguments
from stillframe.domain.errors import StillframeError, in_sentences
from stillframe.domain.operation import Settlement
from stillframe.domain.outcomes import (
    CopiesDeleted,
    CutMade,
    FenceConfirmed,
    InstanceReleased,
    Reason,
    SafetyCopiesDeleted,
    VolumeRestored,
)
from stillframe.domain.snapshot import Fault, InstanceSnapshot
from stillframe.domain.status import Event

_FAILURES: Final[Mapping[Action, Event]] = {
    Action.SNAPSHOT: Event.CREATE_FAILED,
    Action.DELETE: Event.DELETE_FAILED,
    Action.RESTORE: Event.RESTORE_FAILED,
    Action.RETRY: Event.RESTORE_FAILED,
    Action.ROLLBACK: Event.ROLLBACK_FAILED,
}
# A flow that ended has told; this is for one whose records another release has made.
_UNTOLD: Final = Reason(StillframeError.code, "The flow ended without telling what came of it.")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a flow did not come to its own end; `undone`: its tasks have been reverted, as far as they could."""

    fault: Fault
    undone: bool


@dataclass(frozen=True, slots=True)
class Nothing:
    """Nothing is known of an operation but that it failed."""

    action: Action
    failure: Failure


@dataclass(frozen=True, slots=True)
class Creation:
    """What came of a snapshot that was to be made; here and below, `failure` is None where the flow ended."""

    cut: CutMade | None
    now: datetime
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class Deletion:
    """What came of the deletion of `row`."""

    deleted: CopiesDeleted | None
    row: InstanceSnapshot
    now: datetime
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class GivenBack:
    """How the instance of a restore that was undone was found: `free` of our fence, and `up` if it ran before."""

    free: bool
    up: bool


@dataclass(frozen=True, slots=True)
class Restoration:
    """What came of volumes that were to be put back to the copies of `row`.

    `volumes` has each of them by volume id, with None where nobody knows. `committed`: the point of no return was
    passed. `given_back` is needed only for what is `undone`.
    """

    asked: RestoreArguments
    volumes: Mapping[str, VolumeRestored | None]
    fence: FenceConfirmed | None
    release: InstanceReleased | None
    deleted: SafetyCopiesDeleted | None
    row: InstanceSnapshot
    committed: bool
    now: datetime
    failure: Failure | None
    given_back: GivenBack | None = None

    @property
    def undone(self) -> bool:
        """Whether it is as if it had never begun, if only the instance was given back."""
        reverted = self.failure is not None and self.failure.undone
        return reverted and not self.committed and self.asked.action is Action.RESTORE

    @property
    def whole(self) -> bool:
        """Whether all volumes were put back and the instance is free.

        A flow may break off after that; then it is only the telling that had not come through.
        """
        back = all(_is_back(outcome) for outcome in self.volumes.values())
        return back and self.release is not None and not self.release.fenced


Ending: TypeAlias = Creation | Deletion | Restoration | Nothing


def verdict(ending: Ending) -> Settlement:
    """How an operation is settled that ended so."""
    match ending:
        case Creation():
            return _created(ending)
        case Deletion():
            return _deleted(ending)
        case Restoration():
            return _restored(ending)
        case Nothing():
            return Settlement(_FAILURES[ending.action], succeeded=False, fault=ending.failure.fault)
        case _:
            assert_never(ending)


def _created(ending: Creation) -> Settlement:
    if ending.cut is None or ending.failure is not None:
        fault = _fault(ending.failure, None, ending.now)
        return Settlement(Event.CREATE_FAILED, succeeded=False, fault=fault, snapshots=None)
    cut = ending.cut
    return Settlement(Event.CREATED, succeeded=True, snapshots=cut.copies, consistency=cut.consistency)


def _deleted(ending: Deletion) -> Settlement:
    if ending.deleted is None or ending.failure is not None:
        fault = _fault(ending.failure, None, ending.now)
        return Settlement(Event.DELETE_FAILED, succeeded=False, fault=fault)
    left = ending.deleted.left
    if not left:
        return Settlement(Event.DELETED, succeeded=True, unfence=True)
    reasons = in_sentences(f"Volume snapshot {copy_id}: {reason.message}" for copy_id, reason in sorted(left.items()))
    return Settlement(
        Event.DELETE_FAILED,
        succeeded=False,
        fault=Fault(
            next(iter(left.values())).code, f"{len(left)} volume snapshot(s) were not deleted. {reasons}", ending.now
        ),
        snapshots=_only(ending.row.snapshots, left),
        temp_snapshots=_only(ending.row.temp_snapshots, left),
    )


def _only(copies: Mapping[str, str] | None, copy_ids: Collection[str]) -> Mapping[str, str] | None:
    return {volume_id: copy_id for volume_id, copy_id in (copies or {}).items() if copy_id in copy_ids} or None


def _restored(ending: Restoration) -> Settlement:
    if ending.whole:
        return _whole(ending)
    fault = _fault(ending.failure, _why(ending), ending.now)
    if ending.undone and ending.given_back is not None and ending.given_back.free:
        return _as_before(fault, up=ending.given_back.up)
    if ending.asked.action is Action.ROLLBACK:
        # Both maps stay: it can be tried again.
        return Settlement(Event.ROLLBACK_FAILED, succeeded=False, fault=fault)
    copies: Mapping[str, str] = ending.asked.copies
    failed = {volume_id: copies[volume_id] for volume_id, outcome in ending.volumes.items() if not _is_back(outcome)}
    untouched = _untouched(ending)
    if _is_lost(ending):
        # A guest may have written to every one of them since.
        failed, untouched = dict(ending.row.snapshots or {}), frozenset()
    return Settlement(Event.RESTORE_FAILED, succeeded=False, fault=fault, failed_snapshots=failed, untouched=untouched)


def _whole(ending: Restoration) -> Settlement:
    """What went wrong after the volumes were whole is told; safety copies that are left over stay shown."""
    event = Event.ROLLED_BACK if ending.asked.action is Action.ROLLBACK else Event.RESTORED
    told = next((one.failed for one in (ending.release, ending.deleted) if one is not None and one.failed), None)
    fault = None if told is None else Fault(told.code, told.message, ending.now)
    if fault is None and ending.failure is not None:
        fault = ending.failure.fault
    settlement = Settlement(
        event,
        succeeded=True,
        fault=fault,
        failed_snapshots=None,
        untouched=frozenset(),
        unfence=True,
    )
    return settlement if ending.deleted is None else replace(settlement, temp_snapshots=ending.deleted.left or None)


def _as_before(fault: Fault, *, up: bool) -> Settlement:
    """The restore never touched a volume, and what it had prepared was undone."""
    if not up:
        fault = replace(fault, message=f"{fault.message} The instance, which ran before, is not up again.")
    return Settlement(
        Event.RESTORE_UNDONE,
        succeeded=False,
        fault=fault,
        temp_snapshots=None,
        failed_snapshots=None,
        untouched=frozenset(),
        unfence=True,
    )


def _why(ending: Restoration) -> Reason | None:
    """Why volumes are not whole, or not free, as the tasks say it."""
    failed = [(volume_id, one.failed) for volume_id, one in sorted(ending.volumes.items()) if one and one.failed]
    if failed:
        verb = "rolled back" if ending.asked.action is Action.ROLLBACK else "restored"
        reasons = in_sentences(f"Volume {volume_id}: {reason.message}" for volume_id, reason in failed)
        return Reason(failed[0][1].code, f"{len(failed)} volume(s) were not {verb}. {reasons}")
    if ending.fence is not None and ending.fence.lost is not None:
        return ending.fence.lost
    return None if ending.release is None else ending.release.failed


def _untouched(ending: Restoration) -> frozenset[str]:
    """The volumes that are what their safety copies are.

    Of an instance that was not held all the time nothing is known.
    """
    before = frozenset(ending.asked.copies) if ending.asked.safety_copies else ending.row.untouched
    if not ending.committed:
        return before
    failed = [outcome for outcome in ending.volumes.values() if outcome is not None and not outcome.achieved]
    if not all(outcome.held for outcome in failed):
        return frozenset()
    return before & {outcome.volume_id for outcome in failed if not outcome.touched}


def _is_back(outcome: VolumeRestored | None) -> bool:
    return outcome is not None and outcome.achieved


def _is_lost(ending: Restoration) -> bool:
    return ending.fence is not None and ending.fence.lost is not None


def _fault(failure: Failure | None, told: Reason | None, now: datetime) -> Fault:
    """What broke a flow off comes before what it has told."""
    if failure is not None:
        return failure.fault
    reason = told or _UNTOLD
    return Fault(reason.code, reason.message, now)
