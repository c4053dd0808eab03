"""What is left that is neither disk nor copy, and copies that are not what the records say."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from stillframe.domain.errors import Refused
from stillframe.drivers.files.copies import Copies, trouble, trouble_below
from stillframe.drivers.files.disks import Disks
from stillframe.drivers.files.records import Copy, Stage
from stillframe.drivers.files.replacing import RESTORING
from stillframe.drivers.image_files import opening
from stillframe.drivers.image_files.error_translation import translated
from stillframe.drivers.image_files.files import Files, names_in
from stillframe.drivers.leftovers import DriverLeftovers, Loss

# The draft of a record; see `Records.write`.
_DRAFT: Final = ".new"


class FileLeftovers(DriverLeftovers):
    """See `DriverLeftovers`: it holds no guests; `state` is the folder that the records are in."""

    def __init__(self, disks: Disks, state: Path, files: Files) -> None:
        self._copies = Copies(files, disks, state)
        self._files = files
        # An administrator may look on behalf of the service's user.
        self._trusted = opening.trusted_users(state)

    def quiesced(self) -> Sequence[str]:
        """See `DriverLeftovers`."""
        return ()

    def let_run(self, instance_id: str) -> None:
        """See `DriverLeftovers`."""

    def drafts(self, before: datetime) -> Sequence[str]:
        """See `DriverLeftovers`: drafts that nobody holds, and empty folders in which no copy on record lies."""
        with translated("looking for drafts"):
            found = [path for path in self._candidates() if self._is_draft(path, before)]
        return [str(path) for path in found]

    def remove(self, draft: str, before: datetime) -> None:
        """See `DriverLeftovers`."""
        path = Path(draft)
        with translated(f"removing '{path}'"):
            if path not in self._candidates() or not self._is_draft(path, before):
                return
            if path.parent == self._copies.records.folder:
                self._files.remove_abandoned(path)
            elif path.is_dir():
                self._files.remove_folder(path)
            else:
                self._files.remove_beside(path)

    def losses(self) -> Sequence[Loss]:
        """See `DriverLeftovers`."""
        with translated("looking at the copies"):
            return [Loss(copy.id, copy.name.snapshot_id, why) for copy in self._ready() if (why := self._why(copy))]

    def orphans(self) -> Sequence[str]:
        """See `DriverLeftovers`."""
        known = {name for copy in self._copies.records.all() for name in (copy.id, copy.aside.name)}
        with translated("looking for orphans"):
            return [
                str(root / name)
                for root in self._copies.roots()
                for name in self._names(root)
                if name not in known and not name.endswith(RESTORING)
            ]

    def place(self, copy_id: str) -> str | None:
        """See `DriverLeftovers`: its folder."""
        copy = self._copies.records.find(copy_id)
        return None if copy is None else str(copy.folder)

    def _names(self, root: Path) -> list[str]:
        try:
            return names_in(root, self._trusted)
        except (OSError, Refused):
            # The doctor tells of a folder that cannot be entered or believed; it hides no other one.
            return []

    def _why(self, copy: Copy) -> str | None:
        try:
            return trouble(copy, self._trusted) or trouble_below(copy)
        except Refused as problem:
            return problem.message

    def _ready(self) -> Iterator[Copy]:
        return (copy for copy in self._copies.records.all() if copy.stage is Stage.READY)

    def _candidates(self) -> list[Path]:
        records = self._copies.records.folder
        drafts = [path for path in records.glob(f".*{_DRAFT}") if path.is_file()] if records.is_dir() else []
        beside = [root / name for root in self._copies.roots() for name in self._names(root)]
        # The records afterwards: a copy is on record before it has a folder.
        known = {name for copy in self._copies.records.all() for name in (copy.id, copy.aside.name)}
        return sorted(drafts) + [path for path in beside if path.name not in known]

    def _is_draft(self, path: Path, before: datetime) -> bool:
        try:
            found = path.lstat()
            touched = datetime.fromtimestamp(found.st_ctime, UTC).replace(tzinfo=None)
            if stat.S_ISDIR(found.st_mode):
                # Another service's may be about to be filled, and only its age tells.
                return touched <= before and not names_in(path, self._trusted)
            if found.st_size == 0 and touched > before:
                # Where none is nameless, it has a name for an instant before it is locked.
                return False
            # With its lock there is no need to believe any clock: those of the database and the disk may differ.
            ours = path.parent == self._copies.records.folder or path.name.endswith(RESTORING)
            return ours and _unheld(path)
        except (FileNotFoundError, Refused):
            return False


def _unheld(path: Path) -> bool:
    """Whether the attempt that made a draft is gone: a draft is locked as long as its maker has it open."""
    with opening.file(path, os.O_RDONLY, links=False) as draft:
        try:
            fcntl.flock(draft.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
