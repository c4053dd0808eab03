"""What is left that is neither disk nor copy, and copies that are not what the records say."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
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
from stillframe.drivers.leftovers import DriverLeftovers, FoundDraft, Loss

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

    def let_run(self, instance_id: str, require_free: Callable[[], None]) -> None:
        """See `DriverLeftovers`."""

    def drafts(self) -> Sequence[FoundDraft]:
        """See `DriverLeftovers`: drafts that nobody holds, and empty folders in which no copy on record lies."""
        with translated("looking for drafts"):
            return [draft for path in self._candidates() if (draft := self._draft(path)) is not None]

    def remove(self, draft: FoundDraft) -> None:
        """See `DriverLeftovers`."""
        path = Path(draft.id)
        with translated(f"removing '{path}'"):
            if path not in self._candidates() or self._draft(path) != draft:
                return
            if path.parent == self._copies.records.folder:
                self._files.remove_abandoned(path)
            elif path.is_dir():
                self._files.remove_empty_folder(path)
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

    def _draft(self, path: Path) -> FoundDraft | None:
        try:
            # Before its content: what changes after this look makes another state.
            found = path.lstat()
            state = f"{found.st_dev}:{found.st_ino}:{found.st_ctime_ns}"
            if stat.S_ISDIR(found.st_mode):
                # Another service's may be about to be filled.
                return None if names_in(path, self._trusted) else FoundDraft(str(path), state)
            # A lock tells without any clock. But where none is nameless, it has a name for an instant before its lock.
            ours = path.parent == self._copies.records.folder or path.name.endswith(RESTORING)
            gone = ours and _unheld(path)
        except (FileNotFoundError, Refused):
            return None
        return FoundDraft(str(path), None if found.st_size else state) if gone else None


def _unheld(path: Path) -> bool:
    """Whether the attempt that made a draft is gone: a draft is locked as long as its maker has it open."""
    with opening.file(path, os.O_RDONLY, links=False) as draft:
        try:
            fcntl.flock(draft.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
