"""The status table has no dead end, and says no to everything it does not list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillframe.domain.errors import Conflict, Refused
from stillframe.domain.status import TRANSITIONS, Event, Status, advance, events_from, meaning

REQUESTS = {Event.RESTORE, Event.RETRY, Event.ROLLBACK, Event.DELETE}
ENDS = set(Event) - REQUESTS
BUSY = {Status.CREATING, Status.RESTORING, Status.ROLLING_BACK, Status.DELETING}
SETTLED = set(Status) - BUSY - {Status.GONE}

# The contract's own lines, written out once more by hand.
CONTRACT = {
    Status.CREATING: {Status.AVAILABLE, Status.ERROR},
    Status.AVAILABLE: {Status.RESTORING, Status.DELETING},
    Status.ERROR: {Status.DELETING},
    Status.RESTORING: {Status.AVAILABLE, Status.RESTORE_ERROR},
    Status.RESTORE_ERROR: {Status.RESTORING, Status.ROLLING_BACK, Status.DELETING},
    Status.ROLLING_BACK: {Status.AVAILABLE, Status.ROLLBACK_ERROR},
    Status.ROLLBACK_ERROR: {Status.ROLLING_BACK, Status.DELETING},
    Status.DELETING: {Status.GONE, Status.ERROR_DELETING},
    Status.ERROR_DELETING: {Status.DELETING},
    Status.GONE: set(),
}

statuses = st.sampled_from(Status)
events = st.sampled_from(Event)


def test_the_table_is_the_contracts() -> None:
    found = {status: {TRANSITIONS[status, event] for event in events_from(status)} for status in Status}
    assert found == CONTRACT


@pytest.mark.parametrize("status", sorted(BUSY | SETTLED))
def test_every_status_but_gone_has_a_way_out(status: Status) -> None:
    assert events_from(status)


def test_gone_is_the_end() -> None:
    assert events_from(Status.GONE) == frozenset()


@pytest.mark.parametrize("status", sorted(BUSY))
def test_a_busy_status_is_left_only_by_the_end_of_its_operation(status: Status) -> None:
    assert events_from(status) <= ENDS
    followers = {advance(status, event) for event in events_from(status)}
    assert followers.isdisjoint(BUSY)
    assert len(followers) >= 2, "it can succeed and it can fail"


@pytest.mark.parametrize("status", sorted(SETTLED))
def test_a_settled_status_is_left_only_by_a_request(status: Status) -> None:
    assert events_from(status) <= REQUESTS
    assert {advance(status, event) for event in events_from(status)} <= BUSY


def test_the_busy_statuses_are_those_that_say_so() -> None:
    assert {status for status in Status if status.value.split("-")[0].endswith("ing")} == BUSY


@pytest.mark.parametrize("status", sorted(SETTLED))
def test_every_settled_status_can_be_deleted_until_it_is_gone(status: Status) -> None:
    deleting = advance(status, Event.DELETE)
    assert deleting is Status.DELETING
    assert advance(deleting, Event.DELETED) is Status.GONE
    assert advance(advance(deleting, Event.DELETE_FAILED), Event.DELETE) is Status.DELETING


@given(statuses, events)
def test_everything_the_table_does_not_list_is_refused(status: Status, event: Event) -> None:
    if (status, event) in TRANSITIONS:
        assert advance(status, event) is TRANSITIONS[status, event]
        assert event in events_from(status)
        return
    assert event not in events_from(status)
    with pytest.raises(Conflict if status in BUSY else Refused) as refused:
        advance(status, event)
    assert f"'{status.value}'" in str(refused.value)
    assert ("try again" if status in BUSY else event.value) in str(refused.value)


@given(statuses.filter(lambda status: status not in {Status.GONE, *BUSY}), events)
def test_a_refusal_names_where_it_would_be_possible(status: Status, event: Event) -> None:
    if (status, event) in TRANSITIONS:
        return
    with pytest.raises(Refused) as refused:
        advance(status, event)
    named = set(str(refused.value).removesuffix(".").rpartition("possible in: ")[2].split(", "))
    assert named == {start.value for (start, known) in TRANSITIONS if known is event}
    assert named


@given(st.lists(events, max_size=30))
def test_whatever_happens_a_snapshot_can_still_be_got_rid_of(happened: list[Event]) -> None:
    status = Status.CREATING
    for event in happened:
        if event in events_from(status):
            status = advance(status, event)
    if status is Status.GONE:
        return
    if status in BUSY:
        status = advance(status, max(events_from(status)))
    if status is not Status.GONE:
        assert advance(advance(status, Event.DELETE), Event.DELETED) is Status.GONE


def test_every_event_leads_somewhere() -> None:
    assert {event for (_status, event) in TRANSITIONS} == set(Event)


def test_every_status_can_be_reached_from_the_first() -> None:
    reached, left = {Status.CREATING}, [Status.CREATING]
    while left:
        status = left.pop()
        for follower in (advance(status, event) for event in events_from(status)):
            if follower not in reached:
                reached.add(follower)
                left.append(follower)
    assert reached == set(Status)


@pytest.mark.parametrize("status", Status)
def test_every_status_has_a_meaning_of_its_own(status: Status) -> None:
    text = meaning(status)
    assert text == text.strip()
    assert text[0].islower(), "it goes on a sentence"
    assert text[-1] != "."
    assert [other for other in Status if meaning(other) == text] == [status]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status.AVAILABLE, {"restored", "deleted"}),
        (Status.ERROR, {"deleted"}),
        (Status.RESTORE_ERROR, {"retry", "roll back", "delete"}),
        (Status.ROLLBACK_ERROR, {"roll back", "delete"}),
        (Status.ERROR_DELETING, {"delete again"}),
    ],
)
def test_the_meaning_of_a_settled_status_names_its_ways_out(status: Status, words: set[str]) -> None:
    assert all(word in meaning(status) for word in words)
