"""Image files as QEMU sees them: headers, chains and locks. Every message is fit for a tenant: it names no path."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stillframe.domain.errors import InvalidInput, NotSupported, Refused
from stillframe.drivers.files import chains, headers
from stillframe.drivers.files.headers import Header
from stillframe.drivers.files.identity import BackingFile, Digests
from stillframe.drivers.files.qemu_img import POLL_SECONDS, PROGRAM, Description, QemuImg
from stillframe.drivers.image_files import opening
from stillframe.drivers.image_files.cache import Cache
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.image_files.looking import looked_at
from stillframe.drivers.image_files.opening import File

__all__ = ["BackingFile", "Description", "Images", "Shape"]

_CACHED: Final = 50_000
_MEMORY: Final = 1 << 30
# A check holds all reference counts in memory, and enlarges them by copying; the program itself needs room, too.
_COUNTS: Final = 3 / 8
_CHECK_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Shape:
    """Virtual size and cluster size of an image in bytes; `backing` is the name as it is stored, often relative."""

    size: int
    cluster: int
    backing: str | None


class Images:
    """Looks at and makes image files; `timeout` in seconds is for every call of qemu-img but `check`.

    `memory` in bytes is what a check may take; `trusted` are the users that may own the folders on the way to an image
    (None: root and the user of this process); `program` and `poll_seconds` as of `QemuImg`. An image is a path, or a
    file that is open already. What is raised besides the errors named is `OSError`.
    """

    def __init__(
        self,
        timeout: float = 30.0,
        *,
        trusted: frozenset[int] | None = None,
        memory: int = _MEMORY,
        check_seconds: float = _CHECK_SECONDS,
        program: str = PROGRAM,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._trusted = trusted
        self._memory = memory
        self._qemu_img = QemuImg(
            timeout, memory=memory, check_seconds=check_seconds, program=program, poll_seconds=poll_seconds
        )
        self._digests = Digests()
        self._headers = Cache(_header, most=_CACHED)

    def shape(self, image: Path | File, form: Format) -> Shape:
        """Virtual size and the like, cheaply: from the header alone; raises `Refused` if it is no such image."""
        if form is Format.RAW:
            return Shape(_length(image), 0, None)
        header = headers.read(image.fd) if isinstance(image, File) else self._headers.get(image)
        headers.require_plain(header)
        return Shape(header.size, header.cluster, header.backing)

    def below(self, image: Path) -> Path | None:
        """Where the backing name of a qcow2 image leads, cheaply; None if it has none, or is no such image."""
        try:
            header = self._headers.get(image)
            return chains.understood(header.backing, image.parent).path if header.backing is not None else None
        except (Refused, OSError):
            return None

    def all_below(self, image: Path) -> Iterator[Path]:
        """Where the names below an image lead, one after the other, cheaply, and whatever formats they state."""
        seen = {image}
        while (below := self.below(image)) is not None and below not in seen and len(seen) <= chains.DEEPEST:
            seen.add(below)
            yield below
            image = below

    def glance(self, image: Path) -> tuple[BackingFile, ...]:
        """The files below an image as they are now, cheaply: neither content nor format is looked at."""
        found = []
        for below in self.all_below(image):
            with suppress(OSError):
                now = below.stat()
                found.append(BackingFile(str(below), "", now.st_size, now.st_mtime_ns, now.st_ino))
        return tuple(found)

    @contextmanager
    def opened(self, image: Path | File) -> Iterator[File]:
        """The image, open in a verified folder; raises `Refused`."""
        if isinstance(image, File):
            yield image
        else:
            with opening.file(image, os.O_RDONLY, self._trusted) as file:
                yield file

    def describe(self, image: Path | File) -> Description:
        """How a qcow2 image was made and what it holds besides its data; raises `Refused`, `NotSupported`."""
        with self.opened(image) as file:
            headers.require_plain(headers.read(file.fd))
            return self._qemu_img.describe(file.fd)

    @contextmanager
    def layers(self, image: Path | File, form: Format, folder: Path) -> Iterator[tuple[chains.Layer, ...]]:
        """The files below an image, nearest first, open; relative names count from `folder`, the image's home.

        Raises `Refused`, `NotSupported` for what is no chain of sound local files.
        """
        if form is Format.RAW:
            yield ()
            return
        with self.opened(image) as file, chains.walked(file, folder, self._trusted, self._stated) as layers:
            yield layers

    def record_chain(
        self, image: Path | File, form: Format, folder: Path, tick: Callable[[], None] = lambda: None
    ) -> tuple[BackingFile, ...]:
        """The files below an image with the digests of their content, which takes as long as reading them once."""
        with self.layers(image, form, folder) as layers:
            return tuple(self._digests.record(layer.file, layer.format, tick) for layer in layers)

    def require_same_chain(
        self, image: Path | File, form: Format, folder: Path, recorded: Sequence[BackingFile]
    ) -> None:
        """Raise `Refused` if what lies below an image now holds something else than what was recorded."""
        with self.layers(image, form, folder) as layers:
            if len(layers) != len(recorded):
                raise Refused(
                    f"There are {len(layers)} images below it, and there were {len(recorded)} when the copy was made; "
                    "undo what changed them."
                )
            for number, (layer, below) in enumerate(zip(layers, recorded, strict=True), 1):
                if layer.format != below.format or not self._digests.is_same(layer.file, below):
                    raise Refused(
                        f"The image below it, number {number} in its backing chain, has been written to or replaced by "
                        "another one since the copy was made; put back the one with the content of then."
                    )

    def confirm(self, image: Path | File, form: Format) -> None:
        """Raise `InvalidInput` or `Refused` if a file that is about to be attached cannot be a disk of this format."""
        with self.opened(image) as file:
            if form is Format.RAW and headers.is_qcow2(file.fd):
                raise InvalidInput("It has a qcow2 header; say that its format is qcow2.")
            if form is Format.QCOW2:
                self.describe(file)
                with self.layers(file, form, file.folder.path):
                    pass

    def probe(self, image: Path) -> Format:
        """The format of a file; raises `Refused` where nothing but the lack of a signature says that it is raw."""
        with self.opened(image) as file:
            if headers.is_qcow2(file.fd):
                return Format.QCOW2
            found = headers.recognized(file.fd)
        raise Refused(f"It has no qcow2 signature (it looks like '{found}'); say that it is raw if you know so.")

    def create(self, image: Path | File, size: int, like: Description, backing: tuple[str, str] | None) -> None:
        """Make an empty qcow2 image of the same kind over an existing file; `backing` is name as stored, and format.

        Raises as `require_rebuildable`.
        """
        with self._writable(image) as file:
            self._qemu_img.create(file.fd, size, like.options, backing)

    def require_rebuildable(self, image: Path | File) -> Description:
        """Raise `NotSupported` for a qcow2 image of which a copy made of its data alone would lose something.

        QEMU makes such copies. The description is what the image of the copy is made after.
        """
        with self.opened(image) as file:
            header, description = headers.read(file.fd), self.describe(file)
        for count, what in ((header.snapshots, "internal snapshots"), (description.bitmaps, "dirty bitmaps")):
            if count:
                raise NotSupported(
                    f"It holds {count} {what}, which QEMU does not copy with the data of a running instance; shut the "
                    "instance down, delete them, or move the disk to XFS or btrfs."
                )
        return description

    def require_checkable(self, image: Path | File, form: Format) -> None:
        """Raise `NotSupported` for an image whose check would need more memory than it may take."""
        if form is Format.RAW:
            return
        with self.opened(image) as file:
            header = headers.read(file.fd)
            counts = os.fstat(file.fd).st_size // header.cluster * header.refcount_bits // 8
        if counts > self._memory * _COUNTS:
            raise NotSupported(
                f"With clusters of {header.cluster} bytes it is too large to be checked in {self._memory >> 20} MiB; "
                "make them larger: qemu-img convert -O qcow2 -o cluster_size=64k"
            )

    def check(self, image: Path | File, form: Format, tick: Callable[[], None]) -> None:
        """Raise `Damaged` if a qcow2 image is inconsistent; lost clusters waste room but lose nothing and are fine."""
        if form is Format.RAW:
            return
        with self.opened(image) as file:
            headers.require_plain(headers.read(file.fd))
            self._qemu_img.check(file.fd, tick)

    def _stated(self, file: File) -> str | None:
        return self._qemu_img.describe(file.fd).backing_format

    @contextmanager
    def _writable(self, image: Path | File) -> Iterator[File]:
        if isinstance(image, File):
            yield image
        else:
            with opening.file(image, os.O_RDWR, self._trusted) as file:
                yield file


def _header(image: Path) -> Header:
    with looked_at(image) as file:
        if file is None:
            raise Refused("It is not a regular file; only image files can be copied.")
        return headers.read(file)


def _length(image: Path | File) -> int:
    found = os.fstat(image.fd) if isinstance(image, File) else image.stat()
    if not stat.S_ISREG(found.st_mode):
        raise Refused("It is not a regular file; only image files can be copied.")
    return found.st_size
