"""What may be removed unasked, what only an operator can judge, and what is to be left alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import pytest

from stillframe.domain.arguments import CreateArguments
from stillframe.domain.leftover import FENCING, Owner, Verdict, judge_copy, judge_draft, judge_fence, judge_lock
from stillframe.domain.operation import Operation, OperationState
from stillframe.domain.snapshot import CopyKind, CopyName, InstanceSnapshot, VolumeSnapshot
from stillframe.domain.status import Status

NOON: Final = datetime(2026, 3, 1, 12)  # noqa: DTZ001  # the store's times are UTC without a zone
BEFORE: Final = NOON + timedelta(hours=1)
YOUNG: Final = BEFORE + timedelta(seconds=1)
KEEP, REMOVE, ASK = Verdict.KEEP, Verdict.REMOVE, Verdict.ASK


def operation(state: OperationState = OperationState.FAILED, ended: datetime | None = NOON) -> Operation:
    finished = ended if state.final else None
    return Operation("o", CreateArguments(("v",)), "s", "p", "i", "req", state, NOON, BEFORE, finished_at=finished)


def snapshot(status: Status, temp_snapshots: dict[str, str] | None = None) -> InstanceSnapshot:
    return InstanceSnapshot("s", "p", "u", "i", "n", "", status, NOON, temp_snapshots=temp_snapshots)


def copy(kind: CopyKind, project_id: str | None = None) -> VolumeSnapshot:
    return VolumeSnapshot("c", CopyName(kind, "s", "v", "o"), 1, ready=True, project_id=project_id)


def owner(row: InstanceSnapshot | None, *, busy: bool = False, ended: datetime | None = NOON) -> Owner:
    return Owner(row, "p" if row or ended else None, ended, busy)


@pytest.mark.parametrize("kind", CopyKind)
@pytest.mark.parametrize("status", [None, *(status for status in Status if status is not Status.GONE)])
def test_a_copy_of_ours_may_go_only_where_no_operation_can_ever_ask_for_it(
    kind: CopyKind, status: Status | None
) -> None:
    useless = {
        (CopyKind.SNAPSHOT, None),
        (CopyKind.SAFETY, None),
        (CopyKind.SNAPSHOT, Status.ERROR),
        (CopyKind.SAFETY, Status.ERROR),
        (CopyKind.SAFETY, Status.AVAILABLE),
    }
    row = None if status is None else snapshot(status)
    expected = REMOVE if (kind, status) in useless else KEEP
    assert judge_copy(copy(kind), operation(), owner(row), BEFORE).verdict is expected


@pytest.mark.parametrize("status", [Status.AVAILABLE, Status.ERROR, None])
@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"maker": operation(OperationState.PENDING)}, KEEP),
        ({"maker": operation(OperationState.RUNNING)}, KEEP),
        ({"busy": True}, KEEP),
        ({"maker": operation(ended=YOUNG)}, KEEP),
        ({"ended": YOUNG}, KEEP),
        ({"maker": None, "ended": None}, ASK),
        ({"maker": None, "busy": True}, KEEP),
        ({"maker": replace(operation(), snapshot_id="another"), "ended": None}, ASK),
        ({"project": "another"}, KEEP),
        ({"project": "p"}, REMOVE),
    ],
)
def test_a_copy_is_spared_for_any_doubt(status: Status | None, changed: dict[str, object], expected: Verdict) -> None:
    values: dict[str, object] = {"maker": operation(), "busy": False, "ended": NOON, "project": None, **changed}
    row = None if status is None else snapshot(status)
    of = owner(row, busy=bool(values["busy"]), ended=values["ended"])  # type: ignore[arg-type]
    found = copy(CopyKind.SAFETY, values["project"])  # type: ignore[arg-type]
    assert judge_copy(found, values["maker"], of, BEFORE).verdict is expected  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [Status.AVAILABLE, Status.ERROR])
def test_a_copy_of_a_snapshot_that_is_there_is_certain_only_with_its_makers_record(status: Status) -> None:
    assert judge_copy(copy(CopyKind.SAFETY), None, owner(snapshot(status)), BEFORE).verdict is ASK


@pytest.mark.parametrize("kind", CopyKind)
def test_the_record_of_the_deletion_is_enough(kind: CopyKind) -> None:
    assert judge_copy(copy(kind), None, owner(None), BEFORE).verdict is REMOVE
    assert judge_copy(copy(kind, "another"), None, owner(None), BEFORE).verdict is KEEP
    assert judge_copy(copy(kind), None, owner(None, ended=YOUNG), BEFORE).verdict is KEEP


def test_a_copy_that_is_shown_stays() -> None:
    shown = snapshot(Status.AVAILABLE, temp_snapshots={"v": "c"})
    assert judge_copy(copy(CopyKind.SAFETY), operation(), owner(shown), BEFORE).verdict is KEEP
    others = snapshot(Status.AVAILABLE, temp_snapshots={"v": "d"})
    assert judge_copy(copy(CopyKind.SAFETY), operation(), owner(others), BEFORE).verdict is REMOVE


@pytest.mark.parametrize("kind", CopyKind)
def test_a_copy_of_another_service_is_never_removed_unasked(kind: CopyKind) -> None:
    verdict = judge_copy(copy(kind), None, owner(None, ended=None), BEFORE)
    assert (verdict.verdict, "perhaps another service's" in verdict.why) == (ASK, True)


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.GONE])
def test_a_fence_of_a_snapshot_that_is_there_is_never_taken_away_unasked(status: Status) -> None:
    expected = KEEP if status in FENCING else ASK
    assert judge_fence(owner(snapshot(status)), BEFORE).verdict is expected


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (owner(None), REMOVE),
        (owner(None, ended=None), ASK),
        (owner(None, ended=YOUNG), KEEP),
        (owner(None, busy=True), KEEP),
        (owner(snapshot(Status.AVAILABLE), busy=True), KEEP),
    ],
)
def test_a_fence_goes_with_its_snapshot(of: Owner, expected: Verdict) -> None:
    assert judge_fence(of, BEFORE).verdict is expected


@pytest.mark.parametrize(
    ("holder", "expected"),
    [
        (None, REMOVE),
        (operation(OperationState.PENDING), KEEP),
        (operation(OperationState.RUNNING), KEEP),
        (operation(ended=YOUNG), KEEP),
        # A call that hangs may still change its instance.
        (operation(), ASK),
    ],
)
def test_an_instance_is_given_back_unasked_only_where_nobody_ever_held_it(
    holder: Operation | None, expected: Verdict
) -> None:
    assert judge_lock(holder, BEFORE).verdict is expected


@pytest.mark.parametrize(
    ("certain", "age", "grace", "expected"),
    [
        (True, None, 60, REMOVE),
        (True, 0, 60, REMOVE),
        (False, 59, 60, KEEP),
        (False, 60, 60, REMOVE),
        (False, None, 60, ASK),
        # Nobody is to be waited for.
        (False, None, 0, REMOVE),
    ],
)
def test_a_draft_goes_once_its_maker_is_gone_or_it_was_seen_for_long_enough(
    *, certain: bool, age: int | None, grace: int, expected: Verdict
) -> None:
    seen = None if age is None else timedelta(seconds=age)
    assert judge_draft(certain=certain, age=seen, grace=timedelta(seconds=grace)).verdict is expected
