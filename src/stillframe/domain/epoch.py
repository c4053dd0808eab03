"""Whether a database is the one that a state folder remembers, or an older state of it: pure, and without a clock.

A worker gives the database a new random mark for its state folder, and then notes it there. So the folder never knows a
mark that the database does not, unless an older state of the database was put back, or another database in its place.

An epoch lasts until somebody accepts an older state: what folders remember of earlier epochs is no evidence any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Standing(StrEnum):
    """What a database is to a state folder.

    `NEW`: the folder remembers nothing. `SAME`: what it remembers is there. `ACCEPTED`: an older state was put back and
    accepted since it was seen last. `OLDER`: an older state was put back. `OTHER`: it is another database.
    """

    NEW = "new"
    SAME = "same"
    ACCEPTED = "accepted"
    OLDER = "older"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Memory:
    """What a state folder, which has an id of its own, remembers of the database: its id, the epoch, the last mark."""

    folder: str
    database: str
    epoch: str
    mark: str


@dataclass(frozen=True, slots=True)
class Marks:
    """What a database says: its epochs, the oldest first, whose id is its own; and the last two marks of one folder."""

    epochs: tuple[str, ...] = ()
    folder: frozenset[str] = frozenset()


def judge(memory: Memory | None, marks: Marks) -> Standing:
    """What a database that says `marks` is to a folder that remembers `memory`."""
    if memory is None:
        return Standing.NEW
    if memory.epoch not in marks.epochs:
        return Standing.OLDER if memory.database in marks.epochs[:1] else Standing.OTHER
    if memory.epoch != marks.epochs[-1]:
        return Standing.ACCEPTED
    return Standing.SAME if memory.mark in marks.folder else Standing.OLDER
