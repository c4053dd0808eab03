"""What came of a task comes out of its record as it went in, whichever release has made that."""

from __future__ import annotations

import json
from typing import Any, Protocol, Self

import pytest

from stillframe.domain.omission import Omission
from stillframe.domain.outcomes import (
    CopiesDeleted,
    CutMade,
    FenceConfirmed,
    FenceDropped,
    InstanceReleased,
    Reason,
    SafetyCopiesDeleted,
    SafetyCopiesMade,
    VolumeRestored,
)
from stillframe.domain.snapshot import Consistency, ConsistencyLevel


class Kept(Protocol):
    @property
    def achieved(self) -> bool: ...

    def to_data(self) -> Any: ...

    @classmethod
    def from_data(cls, data: Any) -> Self: ...


WHY = Reason("unavailable", "The array was away.")
SAID = {"code": WHY.code, "message": WHY.message}
CRASH, COPIES = ConsistencyLevel.CRASH, {"v1": "c1", "v2": "c2"}

# Each with its record, which f3fe89c makes and reads just so, and whether that is what was to be achieved.
RECORDS: list[tuple[Kept, Any, bool]] = [
    (
        CutMade(COPIES, ("c2",), Consistency(CRASH, 1.5, "No agent.", (Omission("volume", "v3", "Not named."),))),
        {
            "copies": COPIES,
            "unready": ["c2"],
            "level": "crash",
            "reason": "No agent.",
            "window_ms": 1.5,
            "omissions": [["volume", "v3", "Not named."]],
        },
        True,
    ),
    (CopiesDeleted({}), {}, True),
    (CopiesDeleted({"c1": WHY}), {"c1": SAID}, False),
    (FenceDropped(achieved=True), True, True),
    (FenceDropped(achieved=False), False, False),
    (SafetyCopiesMade(COPIES), COPIES, True),
    (VolumeRestored("v1"), {"ok": True, "volume_id": "v1"}, True),
    (
        VolumeRestored("v1", WHY, held=True, touched=False),
        {"ok": False, "volume_id": "v1", **SAID, "held": True, "touched": False},
        False,
    ),
    (FenceConfirmed(), {"held": True}, True),
    (FenceConfirmed(WHY), {"held": False, **SAID}, False),
    (InstanceReleased(), {"fenced": False}, True),
    (InstanceReleased(fenced=False, failed=WHY), {"fenced": False, **SAID}, False),
    (InstanceReleased(fenced=True, failed=WHY), {"fenced": True, **SAID}, False),
    (SafetyCopiesDeleted({}), {"leftovers": {}}, True),
    (SafetyCopiesDeleted({"v1": "t1"}, WHY), {"leftovers": {"v1": "t1"}, **SAID}, False),
]

# What the first release has recorded, and is not recorded so any more.
OLDER: list[tuple[Kept, Any]] = [
    (
        CutMade(COPIES, ("c1", "c2"), Consistency(CRASH, 1.5, None, None)),
        {"copies": COPIES, "level": "crash", "window_ms": 1.5},
    ),
    (VolumeRestored("v1", WHY, held=False, touched=True), {"ok": False, "volume_id": "v1", **SAID}),
]


@pytest.mark.parametrize(("told", "record", "achieved"), RECORDS, ids=repr)
def test_outcome_is_recorded_as_the_release_before_does(told: Kept, record: Any, *, achieved: bool) -> None:
    assert told.to_data() == record
    assert type(told).from_data(json.loads(json.dumps(told.to_data()))) == told
    assert told.achieved is achieved


@pytest.mark.parametrize(("told", "record"), OLDER, ids=repr)
def test_record_of_the_first_release_is_read(told: Kept, record: Any) -> None:
    assert type(told).from_data(record) == told
