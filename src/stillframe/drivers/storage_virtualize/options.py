"""What the driver is told by the settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Strategy(StrEnum):
    """By which kind of copy volumes are cut."""

    FLASHCOPY = "flashcopy"
    SNAPSHOTS = "snapshots"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class ArrayOptions:
    """One array: where it is, who we are there, and whom to trust; times in seconds.

    `password_file` is read at each sign-in, so that a changed password needs no restart. `first_wait` is the wait
    after the first answer that says "too many requests"; it doubles from there. With `shared_folder`, one token and
    `commands_a_second` are for all processes that use that folder.
    """

    name: str
    endpoint: str
    username: str
    password: str | None = field(default=None, repr=False)
    password_file: Path | None = None
    ca_file: Path | None = None
    verify_tls: bool = True
    timeout: float = 30.0
    first_wait: float = 1.0
    commands_a_second: int = 10
    shared_folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """All arrays, and how copies are made on them; rates as the array's, `poll_seconds` at most 1."""

    arrays: tuple[ArrayOptions, ...] = ()
    volume_name_template: str = "volume-%s"
    copy_rate: int = 100
    clean_rate: int = 50
    strategy: Strategy = Strategy.FLASHCOPY
    poll_seconds: float = 1.0
