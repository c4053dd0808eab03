"""Taking over the copies of the release before, whose records lay beside the disks.

That release noted each folder of copies in `roots/` in the state folder. A note goes once its folder has been taken
over, so that nothing that comes to lie there later is ever taken for a record. Each copy gets its record before the
old one goes, so that a kill loses nothing and a repetition changes nothing.
"""

from __future__ import annotations

import logging
import os
import uuid
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from stillframe.domain.errors import Refused
from stillframe.drivers.files.copies import mount_of
from stillframe.drivers.files.records import DATA, Copy, Records, Stage
from stillframe.drivers.image_files import opening
from stillframe.drivers.image_files.error_translation import translated
from stillframe.drivers.image_files.files import Files, names_in
from stillframe.drivers.preparation import Preparation

LOG = logging.getLogger(__name__)

META: Final = "meta.json"
_PARTIAL: Final = ".partial"
_GONE: Final = (".deleting", ".partial.new")
_LONGEST_RECORD: Final = 1 << 20
_RECORD: Final[TypeAdapter[dict[str, Any]]] = TypeAdapter(dict[str, Any])
_COPY: Final = TypeAdapter(Copy)


class TakeOver(Preparation):
    """Makes records of what the release before had made; `state` is the drivers' state folder."""

    def __init__(self, files: Files, state: Path) -> None:
        self._files = files
        self._records = Records(files, state)

    def needed(self) -> bool:
        """See `Preparation`."""
        return any(self._noted())

    def run(self) -> None:
        """Take over every folder that is noted and can be believed; what cannot be is logged and left as it is."""
        for note in self._noted():
            root = Path(note.read_text())
            if not root.is_dir():
                LOG.warning("the copies in %s are taken over when its file system is mounted at a start", root)
                continue
            try:
                with translated(f"taking over the copies in '{root}'"):
                    self._folder(root)
                    self._files.remove(note)
            except Exception:
                # One folder that cannot be believed or read keeps nobody from using the others; the note stays.
                LOG.exception("the copies in %s are not taken over; mend it and start again", root)

    def _noted(self) -> list[Path]:
        return sorted(self._records.notes.glob("[!.]*"))

    def _folder(self, root: Path) -> None:
        with opening.folder(root, links=False):
            names = names_in(root)
        for name in names:
            base, dot, rest = name.partition(".")
            suffix = dot + rest
            if not _is_id(base) or suffix not in ("", _PARTIAL, *_GONE):
                continue
            if suffix in _GONE:
                self._files.remove_folder(root / name)
                continue
            try:
                self._one(root, base, root / name, ready=not suffix)
            except (Refused, ValueError, FileNotFoundError) as problem:
                LOG.error(  # noqa: TRY400 -- the message says it all
                    "%s is not taken over, and stays as an orphan: %s", root / name, problem
                )
        self._files.close_folder(root)
        self._files.sync(root)

    def _one(self, root: Path, copy_id: str, folder: Path, *, ready: bool) -> None:
        if META not in names_in(folder):
            return
        if self._records.find(copy_id) is None:
            self._records.write(_checked(root, copy_id, folder, ready=ready))
        if not ready:
            self._files.rename_folder(folder, root / copy_id)
        self._files.close_folder(root / copy_id)
        self._files.remove_beside(root / copy_id / META)


def _checked(root: Path, copy_id: str, folder: Path, *, ready: bool) -> Copy:
    """The copy that an old record tells of; raises `Refused` or `ValueError` for one that does not hold together."""
    with opening.file(folder / META, links=False) as file:
        if file.found.st_uid not in opening.trusted_users() or file.found.st_nlink != 1:
            raise ValueError("its record belongs to somebody else")
        content = os.pread(file.fd, _LONGEST_RECORD, 0)
    try:
        told = _RECORD.validate_json(content)
        place = {"root": str(root), "mount": mount_of(root), "stage": Stage.READY if ready else Stage.MAKING}
        copy = _COPY.validate_python({**told, **place})
    except ValidationError as problem:
        raise ValueError(f"its record cannot be read: {problem}") from None
    if copy.id != copy_id:
        raise ValueError("its record is about another copy")
    if Path(copy.source).parent != root.parent:
        raise ValueError("its record is about a disk in another folder")
    if ready:
        with opening.file(folder / DATA, links=False) as data:
            if data.found.st_size != copy.file_size:
                raise ValueError("its data have another length than was recorded")
    return copy


def _is_id(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False
