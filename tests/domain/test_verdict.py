"""How an operation is settled, for everything that can come of its flow."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import pytest

from stillframe.domain.arguments import Action, RestoreAction, RestoreArguments
from stillframe.domain.operation import CopyMap, Settlement, Unchanged
from stillframe.domain.outcomes import (
    CopiesDeleted,
    CutMade,
    FenceConfirmed,
    InstanceReleased,
    Reason,
    SafetyCopiesDeleted,
    VolumeRestored,
)
from stillframe.domain.snapshot import Consistency, ConsistencyLevel, Fault, InstanceSnapshot
from stillframe.domain.status import BUSY, TRANSITIONS, Event, Status
from stillframe.domain.verdict import (
    Creation,
    Deletion,
    Failure,
    GivenBack,
    Nothing,
    Restoration,
    verdict,
)

NOW: Final = datetime(2026, 3, 1, 12)  # noqa: DTZ001  # the store's times have no zone
BROKE: Final = Fault("unavailable", "The array was away.", NOW - timedelta(seconds=1))
KEPT: Final = Unchanged.UNCHANGED
COPIES: Final = {"v1": "c1", "v2": "c2"}
ROW: Final = InstanceSnapshot(
    id="s",
    project_id="p",
    user_id="u",
    instance_id="i",
    name="",
    description="",
    status=Status.RESTORING,
    created_at=NOW,
    snapshots={**COPIES, "v3": "c3"},
    temp_snapshots={"v1": "t1"},
    untouched=frozenset({"v1"}),
)
#: The status in which each action's operation has the row.
BUSY_WITH: Final = {
    Action.SNAPSHOT: Status.CREATING,
    Action.DELETE: Status.DELETING,
    Action.RESTORE: Status.RESTORING,
    Action.RETRY: Status.RESTORING,
    Action.ROLLBACK: Status.ROLLING_BACK,
}
RESTORES: Final[tuple[RestoreAction, ...]] = (Action.RESTORE, Action.RETRY, Action.ROLLBACK)
FAILURES: Final = (None, Failure(BROKE, undone=False), Failure(BROKE, undone=True))
LOST: Final = Reason("conflict", "It was freed.")
NOT_FREE: Final = Reason("backend-error", "It is not free.")
NOT_UP: Final = Reason("unavailable", "It is not up.")
LEFT_OVER: Final = Reason("backend-error", "They are left over.")


def volume(volume_id: str) -> tuple[VolumeRestored | None, ...]:
    failed = Reason("damaged", f"The copy of {volume_id} is damaged.")
    states = [VolumeRestored(volume_id, failed, held, touched) for held in (True, False) for touched in (True, False)]
    return (None, VolumeRestored(volume_id), *states)


def restorations() -> Iterator[Restoration]:
    """Each and every one."""
    outcomes = itertools.product(
        volume("v1"),
        volume("v2"),
        (None, FenceConfirmed(), FenceConfirmed(LOST)),
        (None, InstanceReleased(), InstanceReleased(failed=NOT_UP), InstanceReleased(fenced=True, failed=NOT_FREE)),
        (None, SafetyCopiesDeleted({}), SafetyCopiesDeleted({"v1": "t1"}, LEFT_OVER)),
    )
    for first, second, fence, release, deleted in outcomes:
        volumes = {"v1": first, "v2": second}
        for action, safety in itertools.product(RESTORES, (True, False)):
            asked = RestoreArguments(action, COPIES, force=True, safety_copies=safety)
            for failure, committed in itertools.product(FAILURES, (True, False)):
                yield Restoration(asked, volumes, fence, release, deleted, ROW, committed, NOW, failure)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the table of restores asks about an ending."""

    back: bool
    free: bool
    lost: bool
    undone: bool
    given_back: GivenBack | None
    rollback: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One line of it: when it holds, and what follows."""

    holds: Callable[[Seen], bool]
    event: Event
    failed_snapshots: Callable[[Restoration], CopyMap]
    temp_snapshots: Callable[[Restoration], CopyMap] = lambda _ending: KEPT


def not_back(ending: Restoration) -> Mapping[str, str]:
    return {one: COPIES[one] for one, told in ending.volumes.items() if told is None or told.failed is not None}


def still_there(ending: Restoration) -> CopyMap:
    return KEPT if ending.deleted is None else dict(ending.deleted.left) or None


def ended_well(seen: Seen) -> bool:
    return seen.back and seen.free


def as_before(seen: Seen) -> bool:
    return not ended_well(seen) and seen.undone and seen.given_back is not None and seen.given_back.free


def bad(seen: Seen) -> bool:
    return not ended_well(seen) and not as_before(seen)


TABLE: Final = [
    Line(lambda s: ended_well(s) and not s.rollback, Event.RESTORED, lambda _e: None, still_there),
    Line(lambda s: ended_well(s) and s.rollback, Event.ROLLED_BACK, lambda _e: None, still_there),
    Line(as_before, Event.RESTORE_UNDONE, lambda _e: None, lambda _e: None),
    Line(lambda s: bad(s) and s.rollback, Event.ROLLBACK_FAILED, lambda _e: KEPT),
    Line(lambda s: bad(s) and not s.rollback and s.lost, Event.RESTORE_FAILED, lambda _e: ROW.snapshots),
    Line(lambda s: bad(s) and not s.rollback and not s.lost, Event.RESTORE_FAILED, not_back),
]


def look(ending: Restoration) -> Seen:
    failure = ending.failure
    return Seen(
        back=all(one is not None and one.failed is None for one in ending.volumes.values()),
        free=ending.release is not None and not ending.release.fenced,
        lost=ending.fence is not None and ending.fence.lost is not None,
        undone=(
            failure is not None and failure.undone and not ending.committed and ending.asked.action is Action.RESTORE
        ),
        given_back=ending.given_back,
        rollback=ending.asked.action is Action.ROLLBACK,
    )


def require_line(ending: Restoration) -> None:
    """The ending is on exactly one line of the table, and settled by it."""
    seen, settled = look(ending), verdict(ending)
    (line,) = [line for line in TABLE if line.holds(seen)]
    assert settled.event is line.event
    assert settled.failed_snapshots == line.failed_snapshots(ending)
    assert settled.temp_snapshots == line.temp_snapshots(ending)
    require_sense(ending.asked.action, settled)
    assert settled.unfence == (line.event in (Event.RESTORED, Event.ROLLED_BACK, Event.RESTORE_UNDONE))
    # What broke a flow off is told whatever else there is to tell, but for what went wrong when all was well.
    if ending.failure is not None and not ended_well(seen):
        assert settled.fault is not None
        assert settled.fault.code == BROKE.code
        assert settled.fault.created_at == BROKE.created_at


def require_sense(action: Action, settled: Settlement) -> None:
    """What holds for every settlement of an action."""
    assert (BUSY_WITH[action], settled.event) in TRANSITIONS
    assert TRANSITIONS[BUSY_WITH[action], settled.event] not in BUSY
    assert settled.succeeded == (settled.event in (Event.CREATED, Event.DELETED, Event.RESTORED, Event.ROLLED_BACK)), (
        settled
    )
    assert settled.succeeded or settled.fault is not None
    assert settled.free


def test_every_restore_is_settled_by_one_line_of_the_table() -> None:
    undone = 0
    for ending in restorations():
        require_line(ending)
        if ending.undone:
            undone += 1
            for free, up in itertools.product((True, False), repeat=2):
                require_line(replace(ending, given_back=GivenBack(free, up)))
    assert undone


def test_volumes_count_as_untouched_only_where_everybody_says_so() -> None:
    for ending in restorations():
        settled = verdict(ending)
        if settled.event is not Event.RESTORE_FAILED:
            assert settled.untouched == (None if settled.event is Event.ROLLBACK_FAILED else frozenset())
            continue
        failed = [one for one in ending.volumes.values() if one is not None and one.failed is not None]
        before = frozenset(COPIES) if ending.asked.safety_copies else ROW.untouched
        if look(ending).lost or (ending.committed and not all(one.held for one in failed)):
            assert settled.untouched == frozenset()
        elif not ending.committed:
            assert settled.untouched == before
        else:
            assert settled.untouched == before & {one.volume_id for one in failed if not one.touched}


ENDED: Final = Restoration(
    asked=RestoreArguments(Action.RESTORE, COPIES, force=False, safety_copies=True),
    volumes={"v1": VolumeRestored("v1"), "v2": VolumeRestored("v2")},
    fence=FenceConfirmed(),
    release=InstanceReleased(),
    deleted=SafetyCopiesDeleted({}),
    row=ROW,
    committed=True,
    now=NOW,
    failure=None,
)
UNDONE: Final = replace(ENDED, volumes={"v1": None}, fence=None, release=None, deleted=None, committed=False)
BOTH: Final = {one: VolumeRestored(one, Reason(f"code-{one}", f"No {one}.")) for one in ("v2", "v1")}
ROLLBACK: Final = replace(ENDED.asked, action=Action.ROLLBACK)
PARTLY: Final = "volume(s) were not"

# What the row shows as its fault.
TOLD: Final[dict[str, tuple[Restoration, str | None, str]]] = {
    "all is well": (ENDED, None, ""),
    "the instance is not up": (replace(ENDED, release=InstanceReleased(failed=NOT_UP)), NOT_UP.code, NOT_UP.message),
    "copies are left over": (
        replace(ENDED, deleted=SafetyCopiesDeleted({"v1": "t1"}, LEFT_OVER)),
        LEFT_OVER.code,
        LEFT_OVER.message,
    ),
    "neither": (
        replace(ENDED, release=InstanceReleased(failed=NOT_UP), deleted=SafetyCopiesDeleted({"v1": "t1"}, LEFT_OVER)),
        NOT_UP.code,
        NOT_UP.message,
    ),
    "the telling broke off": (replace(ENDED, failure=FAILURES[1]), BROKE.code, BROKE.message),
    "volumes failed": (
        replace(ENDED, volumes=BOTH),
        "code-v1",
        f"2 {PARTLY} restored. Volume v1: No v1. Volume v2: No v2.",
    ),
    "volumes failed to go back": (
        replace(ENDED, asked=ROLLBACK, volumes={"v1": BOTH["v1"], "v2": VolumeRestored("v2")}),
        "code-v1",
        f"1 {PARTLY} rolled back. Volume v1: No v1.",
    ),
    "the fence was lost": (replace(ENDED, fence=FenceConfirmed(LOST), release=None), LOST.code, LOST.message),
    "the fence stays": (
        replace(ENDED, release=InstanceReleased(fenced=True, failed=NOT_FREE)),
        NOT_FREE.code,
        NOT_FREE.message,
    ),
    "nobody told": (replace(ENDED, fence=None, release=None), "internal-error", "without telling"),
    "undone, and up": (
        replace(UNDONE, failure=FAILURES[2], given_back=GivenBack(free=True, up=True)),
        BROKE.code,
        BROKE.message,
    ),
    "undone, and not up": (
        replace(UNDONE, failure=FAILURES[2], given_back=GivenBack(free=True, up=False)),
        BROKE.code,
        f"{BROKE.message} The instance, which ran before, is not up again.",
    ),
}


@pytest.mark.parametrize("name", TOLD)
def test_a_restore_is_told_with_its_reason(name: str) -> None:
    ending, code, message = TOLD[name]
    fault = verdict(ending).fault
    assert (fault and fault.code) == code
    assert message in (fault.message if fault else "")


CUT: Final = CutMade(COPIES, ("c1",), Consistency(ConsistencyLevel.CRASH, 1.5))


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("cut", [CUT, None])
def test_snapshot_is_there_only_where_its_flow_ended(cut: CutMade | None, failure: Failure | None) -> None:
    settled = verdict(Creation(cut, NOW, failure))
    require_sense(Action.SNAPSHOT, settled)
    if cut is not None and failure is None:
        assert settled == Settlement(Event.CREATED, succeeded=True, snapshots=COPIES, consistency=CUT.consistency)
    else:
        assert (settled.event, settled.snapshots) == (Event.CREATE_FAILED, None)


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize(
    ("left", "snapshots", "temp_snapshots"),
    [
        (None, KEPT, KEPT),
        ({}, KEPT, KEPT),
        ({"c2": "No c2.", "c1": "No c1."}, COPIES, None),
        ({"t1": "No t1."}, None, {"v1": "t1"}),
        ({"stray": "No stray."}, None, None),
    ],
)
def test_deletion_keeps_what_is_left(
    left: dict[str, str] | None, snapshots: CopyMap, temp_snapshots: CopyMap, failure: Failure | None
) -> None:
    deleted = None
    if left is not None:
        deleted = CopiesDeleted({one: Reason("unavailable", message) for one, message in left.items()})
    settled = verdict(Deletion(deleted, ROW, NOW, failure))
    require_sense(Action.DELETE, settled)
    if failure is not None:
        assert settled == Settlement(Event.DELETE_FAILED, succeeded=False, fault=BROKE)
    elif left == {}:
        assert settled == Settlement(Event.DELETED, succeeded=True, unfence=True)
    else:
        assert settled.event is Event.DELETE_FAILED
        assert (settled.snapshots, settled.temp_snapshots) == (snapshots, temp_snapshots)
        message = settled.fault.message if settled.fault else ""
        assert [one for one in left or () if f"{one}: No {one}." not in message] == []


@pytest.mark.parametrize("action", Action)
def test_operation_of_which_nothing_is_known_has_failed(action: Action) -> None:
    settled = verdict(Nothing(action, Failure(BROKE, undone=False)))
    require_sense(action, settled)
    assert settled == Settlement(settled.event, succeeded=False, fault=BROKE)
