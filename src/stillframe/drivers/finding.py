"""One thing that was looked at, or that is to be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is, and how to mend it."""

    check: str
    level: Level
    detail: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """What is looked at by itself, for it may not answer; that is told then, and hides none of the others.

    `look` changes nothing. It may name further checks, each of which is looked at by itself as well. `mend`: what to do
    where it does not answer, which is a failure if it is `grave`.
    """

    name: str
    look: Callable[[], Iterable[Finding | Check]]
    mend: str
    grave: bool = True


def ok(check: str, detail: str) -> Finding:
    return Finding(check, Level.OK, detail)


def warn(check: str, detail: str, mend: str = "") -> Finding:
    return Finding(check, Level.WARN, detail, mend)


def fail(check: str, detail: str, mend: str = "") -> Finding:
    return Finding(check, Level.FAIL, detail, mend)
