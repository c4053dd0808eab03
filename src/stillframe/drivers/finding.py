"""One thing that was looked at."""

from __future__ import annotations

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


def ok(check: str, detail: str) -> Finding:
    return Finding(check, Level.OK, detail)


def warn(check: str, detail: str, mend: str = "") -> Finding:
    return Finding(check, Level.WARN, detail, mend)


def fail(check: str, detail: str, mend: str = "") -> Finding:
    return Finding(check, Level.FAIL, detail, mend)
