"""Names of copies are keys: the same ids make the same name, others another; settlements are values."""

from __future__ import annotations

import dataclasses
import uuid
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillframe.domain.operation import OperationState, Settlement
from stillframe.domain.snapshot import CopyKind, CopyName, Fault
from stillframe.domain.status import Event

names = st.builds(CopyName, st.sampled_from(CopyKind), st.uuids().map(str), st.uuids().map(str), st.uuids().map(str))


@given(names)
def test_a_copys_id_is_made_of_its_name_alone(name: CopyName) -> None:
    again = CopyName(CopyKind(name.kind.value), name.snapshot_id, name.volume_id, name.operation_id)
    assert again.uuid == name.uuid
    assert uuid.UUID(name.uuid).version == 5


@given(names, names)
def test_copies_of_different_names_have_different_ids(one: CopyName, other: CopyName) -> None:
    assert (one == other) is (one.uuid == other.uuid)


@pytest.mark.parametrize("field", ["kind", "snapshot_id", "volume_id", "operation_id"])
def test_every_part_of_the_name_counts(field: str) -> None:
    name = CopyName(CopyKind.SNAPSHOT, "s", "v", "o")
    change: dict[str, Any] = {field: CopyKind.SAFETY if field == "kind" else "x"}
    changed = dataclasses.replace(name, **change)
    assert changed.uuid != name.uuid


def test_the_id_of_a_copy_never_changes_between_releases() -> None:
    assert CopyName(CopyKind.SAFETY, "s", "v", "o").uuid == "d959a4d8-ae3f-557a-a4bc-ea1a318e4ade"


def test_an_operation_is_final_or_somebody_works_on_it() -> None:
    assert [state.value for state in OperationState if state.final] == ["succeeded", "failed"]


def test_a_settlement_that_keeps_the_lock_differs_in_nothing_else() -> None:
    fault = Fault("unavailable", "away", datetime(2026, 1, 1))  # noqa: DTZ001  # the store's times have no zone
    settlement = Settlement(Event.RESTORE_FAILED, succeeded=False, fault=fault, failed_snapshots={"v": "c"})
    kept = settlement.keeping_lock()
    assert (settlement.free, kept.free) == (True, False)
    assert dataclasses.replace(kept, free=True) == settlement
