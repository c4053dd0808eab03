"""The rule that storms are judged by."""

from __future__ import annotations

from tests.storm.ledger import Entry, overtaken


def entry(generation: int, what: str = "begins", operation: str = "one", thread: int = 0) -> Entry:
    return Entry(0.0, operation, generation, f"worker{generation}", "restore", what, thread)


def test_a_call_that_ends_late_is_fine() -> None:
    assert overtaken([entry(1), entry(2), entry(1, "ends"), entry(2, "ends")]) == []


def test_a_call_that_begins_late_is_not() -> None:
    late = entry(1)
    assert overtaken([entry(1), entry(2), late]) == [late]


def test_operations_are_judged_by_themselves() -> None:
    assert overtaken([entry(2), entry(1, operation="another")]) == []


def test_a_thread_that_was_stopped_before_its_call_begins_late_once() -> None:
    other, again = entry(1, thread=2), entry(1)
    assert overtaken([entry(1), entry(2), entry(1, "goes-on"), entry(1), other]) == []
    assert overtaken([entry(1), entry(2), entry(1, "goes-on"), entry(1), other, again]) == [again]


def test_a_thread_that_begins_late_without_having_been_stopped_is_wrong() -> None:
    late = entry(1)
    assert overtaken([entry(1), entry(2), entry(2, "goes-on"), late]) == [late]
