"""How much of the whole each task is: as much as it turns out to have to copy."""

from __future__ import annotations

import itertools

import pytest

from stillframe.engine.progress import Meter

CREATE = {"creating": 90.0, "updating": 90.0, "done": 1.0}
RESTORE = {"fencing": 1.0, "safety": 45.0, "first": 22.5, "second": 22.5, "releasing": 1.0, "done": 1.0}


def meter(weights: dict[str, float], *either: str, finished: frozenset[str] = frozenset()) -> Meter:
    return Meter(weights, {*finished}, lambda _percent: None, either)


def seen(one: Meter, task: str, silent: bool = False) -> list[int]:  # noqa: FBT001, FBT002  # a table's column
    found = []
    for step in range(11):
        if not silent:
            one.report(task, step / 10)
        found.append(one.percent())
    one.finish(task)
    return [*found, one.percent()]


def require_even(percents: list[int], *, first: int, last: int) -> None:
    assert (percents[0] <= first, percents[-1] >= last) == (True, True), percents
    steps = [after - before for before, after in itertools.pairwise(percents)]
    assert all(0 <= step <= 12 for step in steps), percents


@pytest.mark.parametrize("copying", ["creating", "updating"])
def test_a_snapshot_moves_with_its_bytes_whether_they_are_copied_at_the_cut_or_after(copying: str) -> None:
    one = meter(CREATE, "creating", "updating")
    percents = [
        *seen(one, "creating", silent=copying != "creating"),
        *seen(one, "updating", silent=copying != "updating"),
    ]
    require_even(percents, first=0, last=97)


def test_a_cut_that_copies_a_part_leaves_room_for_the_rest() -> None:
    one = meter(CREATE, "creating", "updating")
    seen(one, "creating")
    assert 45 <= seen(one, "updating")[1] <= 60
    assert one.percent() == 99


@pytest.mark.parametrize("copied", [True, False])
def test_a_restore_moves_with_its_bytes_whether_or_not_the_safety_copies_take_any(copied: bool) -> None:  # noqa: FBT001
    one = meter(RESTORE)
    one.finish("fencing")
    require_even([*seen(one, "safety", silent=not copied), *seen(one, "first"), *seen(one, "second")], first=4, last=95)


def test_an_attempt_that_goes_on_counts_what_was_done_before_it() -> None:
    one = meter(RESTORE, finished=frozenset({"fencing", "safety"}))
    require_even([*seen(one, "first"), *seen(one, "second")], first=5, last=94)
