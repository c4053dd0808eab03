"""What an accepted older state makes of an instance snapshot, for everything that the platform can have of it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

import pytest

from stillframe.domain.errors import OlderDatabase
from stillframe.domain.reconciliation import Change, Evidence, reconcile
from stillframe.domain.snapshot import CopyKind, CopyName, Fault, InstanceSnapshot, VolumeSnapshot
from stillframe.domain.status import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NOW: Final = datetime(2026, 3, 1, 12)  # noqa: DTZ001  # the store's times have no zone
ROW: Final = InstanceSnapshot(
    id="s",
    project_id="p",
    user_id="u",
    instance_id="i",
    name="",
    description="",
    status=Status.AVAILABLE,
    created_at=NOW,
    task_id="cut",
)
#: A row that is gone is no row; whoever has one of these at work, or to be deleted, looks by itself.
AT_REST: Final = (Status.AVAILABLE, Status.RESTORE_ERROR, Status.ROLLBACK_ERROR)
AT_WORK: Final = (Status.CREATING, Status.RESTORING, Status.ROLLING_BACK, Status.DELETING, Status.ERROR_DELETING)


def a_copy(copy_id: str, volume: str, operation: str = "cut", kind: CopyKind = CopyKind.SNAPSHOT) -> VolumeSnapshot:
    return VolumeSnapshot(copy_id, CopyName(kind, "s", volume, operation), 1, ready=True)


def safe(copy_id: str, volume: str, operation: str = "restore") -> VolumeSnapshot:
    return a_copy(copy_id, volume, operation, CopyKind.SAFETY)


C1, C2 = a_copy("c1", "v1"), a_copy("c2", "v2")
T1, T2 = safe("t1", "v1"), safe("t2", "v2")
BOTH: Final = {"v1": "t1", "v2": "t2"}
#: The safety copies that there are; and whether they are one of each volume, of one restore.
SAFETY: Final[dict[str, tuple[tuple[VolumeSnapshot, ...], bool]]] = {
    "none": ((), False),
    "of one volume": ((T1,), False),
    "of both": ((T1, T2), True),
    "of two restores": ((T1, safe("t2", "v2", "other")), False),
    "two of one volume": ((T1, T2, safe("t3", "v1")), False),
}
#: What the older state says of safety copies: none, those that are there, others.
RECORDED: Final[tuple[Mapping[str, str] | None, ...]] = (None, BOTH, {"v1": "t8", "v2": "t9"})
NAMED: Final = {"v1": "c1", "v2": "c2"}


@dataclass(frozen=True, slots=True)
class Case:
    """An instance snapshot of two volumes, and what there is of it."""

    status: Status
    recorded: Mapping[str, str] | None
    there: frozenset[str]
    safety: str
    fenced: bool

    @property
    def found(self) -> Change | None:
        row = replace(ROW, status=self.status, snapshots=NAMED, temp_snapshots=self.recorded)
        copies = (*(one for one in (C1, C2) if one.id in self.there), *SAFETY[self.safety][0])
        return reconcile(row, Evidence(copies, self.fenced))

    @property
    def whole(self) -> bool:
        return len(self.there) == 2

    @property
    def kept(self) -> Mapping[str, str] | None:
        return {volume: copy_id for volume, copy_id in NAMED.items() if copy_id in self.there} or None

    @property
    def can_go_back(self) -> bool:
        """Whether there is a safety copy of each volume, and no doubt which."""
        return SAFETY[self.safety][1]

    @property
    def still_recorded(self) -> Mapping[str, str] | None:
        there = {copy.id for copy in SAFETY[self.safety][0]}
        return {volume: copy_id for volume, copy_id in (self.recorded or {}).items() if copy_id in there} or None


@dataclass(frozen=True, slots=True)
class Line:
    """When it holds, and what the snapshot becomes: None where it stays as it is."""

    holds: Callable[[Case], bool]
    status: Status | None
    maps: Callable[[Case], Mapping[str, Mapping[str, str] | None]] = lambda _case: {}


def restore_known(case: Case) -> bool:
    """Whether the older state tells of the very restore that the instance is fenced for."""
    return case.status is not Status.AVAILABLE and case.can_go_back and case.recorded == BOTH


TABLE: Final = [
    # All copies are there, and the instance is fenced: a restore has not ended.
    Line(lambda c: c.whole and c.fenced and restore_known(c), None),
    Line(
        lambda c: c.whole and c.fenced and not restore_known(c),
        Status.RESTORE_ERROR,
        lambda c: {"failed_snapshots": NAMED, "temp_snapshots": BOTH if c.can_go_back else None},
    ),
    # All copies are there, and the instance is free: whatever was under way is over.
    Line(lambda c: c.whole and not c.fenced and c.status is Status.AVAILABLE, None),
    Line(
        lambda c: c.whole and not c.fenced and c.status is not Status.AVAILABLE,
        Status.AVAILABLE,
        lambda c: {"failed_snapshots": None, "temp_snapshots": c.still_recorded},
    ),
    # Copies are gone: there is no restoring any more, and going back only where each volume can.
    Line(
        lambda c: not c.whole and c.fenced and c.can_go_back,
        Status.ROLLBACK_ERROR,
        lambda c: {"snapshots": c.kept, "temp_snapshots": BOTH, "failed_snapshots": None},
    ),
    Line(
        lambda c: not c.whole and not (c.fenced and c.can_go_back),
        Status.ERROR,
        lambda c: {"snapshots": c.kept, "temp_snapshots": None, "failed_snapshots": None},
    ),
]


def cases() -> Iterator[Case]:
    """Each and every one."""
    there = [frozenset(some) for count in range(3) for some in itertools.combinations(("c1", "c2"), count)]
    for parts in itertools.product(AT_REST, RECORDED, there, SAFETY, (True, False)):
        yield Case(*parts)


def test_a_snapshot_at_rest_becomes_what_one_line_of_the_table_says() -> None:
    seen = set()
    for case in cases():
        ((number, line),) = [(number, line) for number, line in enumerate(TABLE) if line.holds(case)]
        seen.add(number)
        change = case.found
        if line.status is None:
            assert change is None, case
        else:
            assert change is not None, case
            assert (change.status, change.maps, change.fenced) == (line.status, line.maps(case), case.fenced), case
    assert seen == set(range(len(TABLE)))


@pytest.mark.parametrize("status", AT_WORK)
@pytest.mark.parametrize("fenced", [True, False])
@pytest.mark.parametrize("copies", [(), (C1,), (C1, C2), (C1, C2, T1, T2)])
def test_a_snapshot_that_is_at_work_or_to_be_deleted_stays(
    status: Status, copies: tuple[VolumeSnapshot, ...], *, fenced: bool
) -> None:
    assert reconcile(replace(ROW, status=status, snapshots=NAMED), Evidence(copies, fenced)) is None


#: The copies that a creation may have made; and whether they are one of each volume of `cut`.
MADE: Final[dict[str, tuple[tuple[VolumeSnapshot, ...], bool]]] = {
    "none": ((), False),
    "of one volume": ((C1,), False),
    "of both": ((C1, C2), True),
    "of both, and another's": ((C1, C2, a_copy("c3", "v3", "other")), True),
    "of another operation": ((C1, a_copy("c2", "v2", "other")), False),
    "two of one volume": ((C1, C2, a_copy("c3", "v1")), False),
    "of a volume too many": ((C1, C2, a_copy("c3", "v3")), False),
}
FAULTS: Final = (None, Fault(OlderDatabase.code, "It was open.", NOW), Fault("backend-error", "It failed.", NOW))


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("wanted", [frozenset(), frozenset({"v1", "v2"})])
@pytest.mark.parametrize("safety", SAFETY)
@pytest.mark.parametrize("fenced", [True, False])
def test_a_failed_snapshot_is_there_after_all_only_where_each_copy_is(
    made: str, fault: Fault | None, wanted: frozenset[str], safety: str, *, fenced: bool
) -> None:
    copies, complete = MADE[made]
    evidence = Evidence((*copies, *SAFETY[safety][0]), fenced, wanted)
    change = reconcile(replace(ROW, status=Status.ERROR, fault=fault), evidence)
    created = complete and bool(wanted) and fault is FAULTS[1]
    if not created and not fenced:
        assert change is None
        return
    assert change is not None
    expected: Mapping[str, Mapping[str, str] | None]
    if created and fenced:
        back = BOTH if SAFETY[safety][1] else None
        status, expected = Status.RESTORE_ERROR, {"snapshots": NAMED, "failed_snapshots": NAMED, "temp_snapshots": back}
    elif created:
        status, expected = Status.AVAILABLE, {"snapshots": NAMED}
    else:
        status, expected = Status.ERROR, {}
    assert (change.status, change.maps, change.fenced) == (status, expected, fenced)


def test_a_snapshot_whose_instance_is_fenced_is_never_said_to_be_clean() -> None:
    for case in cases():
        if case.fenced:
            after = case.status if case.found is None else case.found.status
            assert after in (Status.RESTORE_ERROR, Status.ROLLBACK_ERROR, Status.ERROR), case
            assert case.found is None or case.found.fenced


def test_a_change_names_no_copy_that_is_not_there() -> None:
    for case in cases():
        there = {*case.there, *(copy.id for copy in SAFETY[case.safety][0])}
        maps = case.found.maps.values() if case.found is not None else ()
        assert {copy_id for one in maps for copy_id in (one or {}).values()} <= there, case
