"""The books of the copies: where they lie, what is written about each, and how one is found again.

Next to a disk lies `.stillframe/`. A copy is `<id>/` in it, with `data` and `meta.json`; `<id>.partial/` until it is
complete, `<id>.deleting/` when it is on its way out.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from stillframe.domain.errors import Damaged
from stillframe.domain.snapshot import CopyName, VolumeSnapshot
from stillframe.drivers.local.border import border
from stillframe.drivers.local.declaration import Declarations
from stillframe.drivers.local.files import Files
from stillframe.drivers.local.images import BackingFile, Format
from stillframe.drivers.local.remembered import Remembered

LOG = logging.getLogger(__name__)

FOLDER: Final = ".stillframe"
DATA: Final = "data"
META: Final = "meta.json"
_PARTIAL: Final = ".partial"
_DELETING: Final = ".deleting"
_DRAFT: Final = ".new"
_REMEMBERED: Final = 50_000


class Method(StrEnum):
    """How a copy comes into being: shared blocks, a second name, bytes copied by us, bytes copied by QEMU."""

    CLONE = "clone"
    LINK = "link"
    COPY = "copy"
    BACKUP = "backup"


@dataclass(frozen=True, slots=True)
class Copy:
    """What is written about one copy; `file_size` and `backing` are known when it is complete."""

    name: CopyName
    source: str
    format: Format
    method: Method
    size: int
    mode: int
    uid: int
    gid: int
    socket: str | None = None
    file_size: int | None = None
    backing: tuple[BackingFile, ...] = ()

    @property
    def job(self) -> str:
        """The name of QEMU's job and node for this copy; node names are at most 31 characters long."""
        return f"sf{self.name.uuid.replace('-', '')[:28]}"


@dataclass(frozen=True, slots=True)
class Place:
    """One id in one root folder; none of the paths need exist."""

    root: Path
    id: str

    @property
    def final(self) -> Path:
        return self.root / self.id

    @property
    def partial(self) -> Path:
        return self.root / f"{self.id}{_PARTIAL}"

    @property
    def deleting(self) -> Path:
        return self.root / f"{self.id}{_DELETING}"

    @property
    def draft(self) -> Path:
        return self.root / f"{self.id}{_PARTIAL}{_DRAFT}"

    @property
    def exists(self) -> bool:
        """Whether anything of the copy lies here, on its way in or out too."""
        return any(folder.is_dir() for folder in (self.final, self.partial, self.deleting, self.draft))

    @property
    def present(self) -> Path | None:
        """The folder that holds the copy now, or None."""
        return next((folder for folder in (self.final, self.partial) if folder.is_dir()), None)


_ADAPTER: Final = TypeAdapter(Copy)


class Copies:
    """Finds copies in every folder that ever held some, also when their instance is not declared any more."""

    def __init__(self, files: Files, declarations: Declarations, state: Path) -> None:
        self._files = files
        self._declarations = declarations
        self._state = state / "roots"
        self._notes = Remembered(lambda note: Path(note.read_text()), most=_REMEMBERED)
        self._read = Remembered(lambda path: read(path.parent), most=_REMEMBERED)

    def root(self, disk: Path) -> Path:
        """The folder for the copies of a disk, made and remembered if it is new."""
        root = disk.parent / FOLDER
        with border("preparing the folder of the copies"):
            if not self._note(root).exists():
                self._files.make_folder(self._state)
                self._files.write(self._note(root), str(root).encode())
            if not root.is_dir():
                # QEMU may run as another user and has to reach the copies it writes.
                self._files.make_folder(root, mode=0o711)
        return root

    def roots(self) -> list[Path]:
        """Every folder of copies that exists, by the notes and by the declarations."""
        return sorted(root for root in self._noted() | self._declared() if root.is_dir())

    def places(self, copy_id: str) -> list[Place]:
        """Where there is anything of a copy."""
        # Following the links to every declared disk takes long, and only notes that were lost make it necessary.
        for roots in (self._noted, self._declared):
            places = [place for root in sorted(roots()) if (place := Place(root, copy_id)).exists]
            if places:
                return places
        return []

    def locate(self, copy_id: str) -> Path | None:
        """The folder of a copy, complete or partial, or None."""
        return next((found for place in self.places(copy_id) if (found := place.present)), None)

    def _noted(self) -> set[Path]:
        if not self._state.is_dir():
            return set()
        return {self._notes.get(note) for note in self._state.iterdir() if not note.name.startswith(".")}

    def _declared(self) -> set[Path]:
        return {disk.file.parent / FOLDER for _, disk in self._declarations.disks()}

    def all(self) -> Iterator[tuple[Copy, bool]]:
        """Every copy of ours and whether it is ready, those that a kill left on their way in or out too.

        What cannot be read is logged; a folder that is on its way and has no record has no data either. On its way
        out, nobody but this look would ever find it, so the look removes it.
        """
        for root in self.roots():
            for folder in sorted(root.iterdir()):
                if folder.name.endswith(_DELETING) and not meta(folder).exists():
                    self._files.remove_folder(folder, META)
                    continue
                if not folder.is_dir() or (folder.name.endswith(_DRAFT) and not meta(folder).exists()):
                    continue
                try:
                    yield self._read.get(meta(folder)), is_ready(folder)
                except Damaged as problem:
                    LOG.warning("copy left out: %s", problem)

    def _note(self, root: Path) -> Path:
        return self._state / hashlib.sha256(bytes(root)).hexdigest()[:32]


def is_ready(folder: Path) -> bool:
    """Whether the folder's name says that the copy in it is complete."""
    return not folder.name.endswith((_PARTIAL, _DELETING, _DRAFT))


def content(copy: Copy) -> bytes:
    """What goes into the file of a copy."""
    return _ADAPTER.dump_json(copy, indent=1)


def meta(folder: Path) -> Path:
    """The file of a copy in its folder."""
    return folder / META


def read(folder: Path) -> Copy:
    """What is written about the copy in a folder; raises `Damaged`."""
    path = meta(folder)
    try:
        found = _ADAPTER.validate_json(path.read_bytes())
    except (OSError, ValidationError) as problem:
        raise Damaged(f"{path} cannot be read, so nobody knows what the copy beside it is: {problem}") from None
    if found.name.uuid != folder.name.partition(".")[0]:
        raise Damaged(f"{path} belongs to another copy")
    return found


def completed(copy: Copy, file_size: int, backing: tuple[BackingFile, ...]) -> Copy:
    """The copy with what is known at its completion."""
    return replace(copy, file_size=file_size, backing=backing)


def snapshot(copy: Copy, *, ready: bool) -> VolumeSnapshot:
    """The domain's view of a copy."""
    return VolumeSnapshot(id=copy.name.uuid, name=copy.name, size=copy.size, ready=ready)
