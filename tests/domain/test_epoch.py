"""What a database is to a state folder, for everything that both can say."""

from __future__ import annotations

import itertools
from typing import Final

import pytest

from stillframe.domain.epoch import Marks, Memory, Standing, judge

#: What a folder may remember: databases, epochs and marks, known to the database or not.
DATABASES: Final = ("first", "another")
EPOCHS: Final = ("first", "second", "unheard-of")
#: The epochs of a database that was never put back, of one that was once, and of one that knows nothing.
KNOWN: Final = ((), ("first",), ("first", "second"))
MARKS: Final = (frozenset[str](), frozenset({"latest"}), frozenset({"latest", "earlier"}))


def expected(memory: Memory, marks: Marks) -> set[Standing]:
    """By the rules as they are told; they leave one."""
    known = memory.epoch in marks.epochs
    latest = known and marks.epochs.index(memory.epoch) == len(marks.epochs) - 1
    return {
        standing
        for standing, holds in {
            Standing.NEW: False,
            Standing.OTHER: not known and (not marks.epochs or marks.epochs[0] != memory.database),
            Standing.OLDER: (latest and memory.mark not in marks.folder)
            or (not known and bool(marks.epochs) and marks.epochs[0] == memory.database),
            Standing.ACCEPTED: known and not latest,
            Standing.SAME: latest and memory.mark in marks.folder,
        }.items()
        if holds
    }


def test_a_database_is_one_thing_to_a_folder_that_remembers_something() -> None:
    seen = set()
    for database, epoch, mark in itertools.product(DATABASES, EPOCHS, ("latest", "earlier", "newer")):
        for epochs, folder in itertools.product(KNOWN, MARKS):
            memory, marks = Memory("folder", database, epoch, mark), Marks(epochs, folder)
            assert {judge(memory, marks)} == expected(memory, marks), (memory, marks)
            seen.add(judge(memory, marks))
    assert seen == set(Standing) - {Standing.NEW}


@pytest.mark.parametrize("epochs", KNOWN)
@pytest.mark.parametrize("folder", MARKS)
def test_a_database_is_new_to_a_folder_that_remembers_nothing(epochs: tuple[str, ...], folder: frozenset[str]) -> None:
    assert judge(None, Marks(epochs, folder)) is Standing.NEW


def test_a_mark_that_the_database_does_not_know_never_passes_for_the_latest_state() -> None:
    for database, epoch, epochs, folder in itertools.product(DATABASES, EPOCHS, KNOWN, MARKS):
        standing = judge(Memory("folder", database, epoch, "newer"), Marks(epochs, folder))
        assert standing in (Standing.OLDER, Standing.OTHER, Standing.ACCEPTED)
