"""The records of the copies: the service's own word, in its state folder, on what it has made beside the disks.

One file a copy, `copies/<instance snapshot>.<copy>`. What lies beside a disk and has no record here is an orphan; what
is written beside a disk is never believed.
"""

from __future__ import annotations

import glob
import logging
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from stillframe.domain.errors import Damaged, NotFound, Unavailable
from stillframe.domain.snapshot import CopyName, VolumeSnapshot
from stillframe.drivers.block_jobs import job_name
from stillframe.drivers.call import Call
from stillframe.drivers.files.identity import BackingFile
from stillframe.drivers.files.turns import TIMEOUT, Turns
from stillframe.drivers.image_files.cache import Cache
from stillframe.drivers.image_files.files import Files
from stillframe.drivers.image_files.formats import Format

LOG = logging.getLogger(__name__)

#: The folder of the records in the drivers' state folder.
RECORDS: Final = "copies"
#: The folder in which the release before noted where copies lie; each note goes when they are taken over.
NOTES: Final = "roots"
DATA: Final = "data"
_ASIDE: Final = ".deleting"
_TURNS: Final = "turns"
_CACHED: Final = 50_000


class Method(StrEnum):
    """How a copy comes into being: shared blocks, a second name, bytes copied by us, bytes copied by QEMU."""

    CLONE = "clone"
    LINK = "link"
    COPY = "copy"
    BACKUP = "backup"


class Stage(StrEnum):
    """Where a copy is in its life: being made, complete, or on its way out."""

    MAKING = "making"
    READY = "ready"
    GOING = "going"


@dataclass(frozen=True, slots=True)
class Copy:
    """What is on record of one copy; `file_size`, and the content of `backing`, are known when it is complete.

    `root` is the folder of the copies beside the disk `source`, and `mount` what its file system was mounted on.
    """

    name: CopyName
    source: str
    format: Format
    method: Method
    size: int
    root: str
    mount: str
    stage: Stage = Stage.MAKING
    socket: str | None = None
    file_size: int | None = None
    backing: tuple[BackingFile, ...] = ()

    @property
    def id(self) -> str:
        return self.name.uuid

    @property
    def folder(self) -> Path:
        """The folder of this copy alone."""
        return Path(self.root) / self.id

    @property
    def data(self) -> Path:
        """The file that holds the content."""
        return self.folder / DATA

    @property
    def aside(self) -> Path:
        """What an earlier cut of this name had made, on its way out."""
        return Path(self.root) / f"{self.id}{_ASIDE}"

    @property
    def job(self) -> str:
        """The name of the job and the node for this copy."""
        return job_name(self.id)

    def snapshot(self) -> VolumeSnapshot:
        """The domain's view of the copy."""
        return VolumeSnapshot(id=self.id, name=self.name, size=self.size, ready=self.stage is Stage.READY)


_ADAPTER: Final = TypeAdapter(Copy)


class Records:
    """Reads and writes the records; safe to use from threads and from several processes."""

    def __init__(self, files: Files, state: Path, timeout: float = TIMEOUT) -> None:
        self.folder = state / RECORDS
        self.notes = state / NOTES
        self._files = files
        self._read = Cache(_read, most=_CACHED)
        self._turns = Turns(state / _TURNS, timeout)

    def all(self, snapshot_id: str | None = None) -> Iterator[Copy]:
        """Every copy on record (of one instance snapshot); a record that cannot be read is logged."""
        for path in self._paths():
            if snapshot_id in (None, path.name.rpartition(".")[0]):
                try:
                    yield self._read.get(path)
                except FileNotFoundError:
                    continue
                except Damaged as problem:
                    LOG.error("copy left out: %s", problem)  # noqa: TRY400 -- the message says it all

    def find(self, copy_id: str) -> Copy | None:
        """What is on record of a copy, or None; raises `Damaged`."""
        for path in self._paths():
            if path.name.rpartition(".")[2] == copy_id:
                with suppress(FileNotFoundError):
                    return self._read.get(path)
        return None

    def get(self, copy_id: str) -> Copy:
        """What is on record of a copy; raises `NotFound`, `Damaged`, `Unavailable` as long as it may be yet to come."""
        copy = self.find(copy_id)
        if copy is None and any(self.notes.glob("[!.]*")):
            raise Unavailable(
                "The copies of the release before have not been taken over yet. A worker does that once the operations "
                "of that release are over; try again then."
            )
        if copy is None:
            raise NotFound(f"No copy {copy_id} is on record.")
        return copy

    def turn(self, call: Call, copy: Copy) -> AbstractContextManager[None]:
        """Around all that puts a copy on record, changes or removes it; see `Turns.turn`."""
        if not self.folder.is_dir():
            self._files.make_folder(self.folder)
        return self._turns.turn(call, copy.id)

    def write(self, copy: Copy, *, durably: bool = True) -> None:
        """Put a copy on record, or change what is on record of it."""
        path = self._path(copy)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
        if not self.folder.is_dir():
            self._files.make_folder(self.folder)
        self._files.note(draft, path, _ADAPTER.dump_json(copy, indent=1), durably=durably)
        self._tidy(path)
        if durably:
            self._files.sync_shared(self.folder)

    def remove(self, copy: Copy) -> None:
        """Forget a copy; one that is not on record is fine."""
        path = self._path(copy)
        self._files.remove(path)
        self._tidy(path)

    def _tidy(self, path: Path) -> None:
        """Remove what an attempt that was killed in the instant before its record was in place has left of it."""
        for draft in self.folder.glob(f".{glob.escape(path.name)}.*.new"):
            self._files.remove_abandoned(draft)

    def _path(self, copy: Copy) -> Path:
        return self.folder / f"{copy.name.snapshot_id}.{copy.id}"

    def _paths(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [self.folder / name for name in sorted(_names(self.folder))]


def _names(folder: Path) -> Iterator[str]:
    return (path.name for path in folder.iterdir() if not path.name.startswith("."))


def _read(path: Path) -> Copy:
    try:
        copy = _ADAPTER.validate_json(path.read_bytes())
    except ValidationError as problem:
        raise Damaged(f"The record {str(path)!r} cannot be read; put it back from a backup: {problem}") from None
    if copy.id != path.name.rpartition(".")[2]:
        raise Damaged(f"The record {str(path)!r} is about another copy; put it back from a backup.")
    return copy
