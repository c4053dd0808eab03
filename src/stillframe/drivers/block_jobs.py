"""The port to the processes that have the image files of running instances open."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Node:
    """A block node of a process: the format layer of one image; `top` if a device sits on it."""

    name: str
    driver: str
    file: Path
    top: bool


@dataclass(frozen=True, slots=True)
class BlockJob:
    """A background job of a process; `done` and `total` are bytes, `ended` says that it does nothing more."""

    ended: bool
    error: str | None
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Backup:
    """One copy job: its job id, which is its target node's name too, and where it reads."""

    job: str
    source_node: str
    sync: str


@dataclass(frozen=True, slots=True)
class Below:
    """The file below an image, by the name that leads to it, and its format."""

    path: Path
    format: str


@dataclass(frozen=True, slots=True)
class Words:
    """What refusals say of a process and of what somebody has to do there, as its platform calls it: clauses.

    `silent`: that nobody can be asked; `answer`: how that is mended; `merge`: how an overlay is ended; `cancel`: how a
    job is.
    """

    silent: str = "the process that runs the instance does not answer"
    answer: str = "see that it does"
    merge: str = "merge the overlay"
    cancel: str = "cancel it there"


def job_name(copy_id: str) -> str:
    """The name of the job and the node for a copy, a UUID; node names are at most 31 characters long."""
    return f"sf{copy_id.replace('-', '')[:28]}"


def is_ours(job: str) -> bool:
    """Whether a job or node has such a name as `job_name` gives."""
    return re.fullmatch("sf[0-9a-f]{28}", job) is not None


class BlockJobs(ABC):
    """Copying the disks of instances while they run; for storage drivers for image files, whoever runs the guest.

    Offered by the platform of the compute driver. A process is known by the `monitor` of a `FileSource`. Every method
    may raise `Unavailable` without an answer, and `BackendError` for a refusal.
    """

    words: ClassVar[Words] = Words()

    @abstractmethod
    def listens(self, monitor: str) -> bool:
        """Whether there is anybody to be asked."""
        ...

    @abstractmethod
    def nodes(self, monitor: str) -> Sequence[Node]:
        """The format nodes of all images that the process has open."""
        ...

    @abstractmethod
    def foreign_jobs(self, monitor: str) -> Sequence[str]:
        """The kinds of jobs, such as `mirror`, that go on in the process and that nobody here began."""
        ...

    @abstractmethod
    def add_target(self, monitor: str, name: str, descriptors: Sequence[int], form: str, backing: Below | None) -> None:
        """Open a copy's file in the process as a node with this name, by descriptors for writing and for reading."""
        ...

    @abstractmethod
    def remove_target(self, monitor: str, name: str) -> None:
        """Close the node; one that is gone already is fine."""
        ...

    @abstractmethod
    def start_backups(self, monitor: str, backups: Sequence[Backup]) -> None:
        """Start all jobs at one instant, or none: whatever the guest writes from then on is not in the copies."""
        ...

    @abstractmethod
    def job(self, monitor: str, name: str) -> BlockJob | None:
        """How far a job is, or None if the process knows none of this name or is gone."""
        ...

    @abstractmethod
    def cancel_job(self, monitor: str, name: str) -> None:
        """Have a job end soon; one that has ended or is gone already is fine."""
        ...

    @abstractmethod
    def dismiss_job(self, monitor: str, name: str) -> None:
        """Have an ended job forgotten; one that is gone already is fine."""
        ...
