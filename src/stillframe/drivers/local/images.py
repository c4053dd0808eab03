"""Image files as QEMU sees them: headers, chains, locks, and the program `qemu-img`."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from stillframe.domain.errors import BackendError, Damaged, InvalidInput, NotSupported, Refused, Unavailable

_MAGIC: Final = b"QFI\xfb"
_CORRUPT: Final = 1 << 1  # incompatible features, docs/interop/qcow2.txt
_EXTERNAL_DATA: Final = 1 << 2
# QEMU takes shared locks on one byte per permission it uses (block/file-posix.c): 101 is write, 103 is resize.
_WRITER_BYTES: Final = (101, 103)
_FLOCK: Final = "hhqqi4x"
_CORRUPTIONS: Final = 2  # exit codes of qemu-img check
_LEAKS: Final = 3


class Format(StrEnum):
    """The image formats that disks may have."""

    RAW = "raw"
    QCOW2 = "qcow2"


@dataclass(frozen=True, slots=True)
class BackingFile:
    """One file below a qcow2 image, as it was when it was looked at; any change of it changes the image above."""

    path: str
    format: str
    size: int
    mtime_ns: int
    inode: int

    def changed(self) -> str | None:
        """What is different now, or None."""
        try:
            now = Path(self.path).stat()
        except OSError as problem:
            return f"{self.path}: {problem.strerror}"
        if now.st_ino != self.inode:
            return f"{self.path} is another file than it was"
        if (now.st_size, now.st_mtime_ns) != (self.size, self.mtime_ns):
            return f"{self.path} has been written to"
        return None


@dataclass(frozen=True, slots=True)
class Shape:
    """What a qcow2 image says of itself; `backing` is the name as it is stored, often relative."""

    size: int
    cluster: int
    backing: str | None


class Images:
    """Looks at and makes image files; `timeout` in seconds is for every call of qemu-img but `check`."""

    def __init__(self, timeout: float = 30.0) -> None:
        self._timeout = timeout

    def shape(self, path: Path, form: Format) -> Shape:
        """Virtual size and the like, from the header alone; raises `Refused` if the file has another format."""
        if form is Format.RAW:
            return Shape(path.stat().st_size, 0, None)
        with path.open("rb") as file:
            return _shape(path, file.read(104), file)

    def chain(self, path: Path, form: Format, folder: Path) -> tuple[BackingFile, ...]:
        """The files below an image, nearest first; relative names count from `folder`, where the image is at home."""
        stored = self.shape(path, form).backing
        if stored is None:
            return ()
        top = self._json("info", "-U", "-f", form, "--output=json", _plain(path))
        below = str(folder / stored)
        known = top.get("backing-filename-format")
        chosen = ("-f", known) if known else ()
        found = self._json("info", "-U", "--backing-chain", *chosen, "--output=json", _plain(Path(below)))
        return tuple(_backing(entry) for entry in found)

    def confirm(self, path: Path, form: Format) -> None:
        """Raise `InvalidInput` or `Refused` if a file that is about to be declared plainly has another format."""
        if form is Format.QCOW2:
            self.chain(path, form, path.parent)
            return
        with path.open("rb") as file:
            if file.read(4) == _MAGIC:
                raise InvalidInput(f"{path} has a qcow2 header; declare its format as qcow2")

    def probe(self, path: Path) -> Format:
        """The format of a file; raises `Refused` where nothing but the lack of a signature says that it is raw."""
        found = self._json("info", "-U", "--output=json", _plain(path)).get("format")
        if found == Format.QCOW2:
            return Format.QCOW2
        raise Refused(f"{path} has no qcow2 signature (qemu-img guesses '{found}'); say that it is raw if you know so")

    def create(self, path: Path, size: int, cluster: int, backing: tuple[str, str] | None) -> None:
        """Make an empty qcow2 image over the existing file `path`; `backing` is name as stored, and format."""
        below = ("-u", "-b", backing[0], "-F", backing[1]) if backing else ()
        options = ("-o", f"cluster_size={cluster}")
        self._run("create", "-q", "-f", Format.QCOW2, *options, *below, _plain(path), str(size))

    def check(self, path: Path, form: Format, tick: Callable[[], None]) -> None:
        """Raise `Damaged` if a qcow2 image is inconsistent; lost clusters waste room but lose nothing and are fine."""
        if form is Format.RAW:
            return
        # The image is not where its relative backing name counts from, and a check needs only the image.
        target = {"driver": form.value, "file": {"driver": "file", "filename": str(path)}, "backing": None}
        command = ("qemu-img", "check", "-q", f"json:{json.dumps(target)}")
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            try:
                while process.poll() is None:
                    tick()
                    time.sleep(0.01)
            except BaseException:
                process.kill()
                raise
            said = (process.stderr.read() if process.stderr else "").strip()
        if process.returncode == _CORRUPTIONS:
            raise Damaged(f"the qcow2 image {path} is inconsistent; qemu-img check: {said}")
        if process.returncode not in (0, _LEAKS):
            raise Damaged(f"the qcow2 image {path} cannot be checked; qemu-img check: {said}")

    def written_by_someone(self, path: Path) -> bool:
        """Whether a QEMU process holds the image open for writing; raises `OSError`."""
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for byte in _WRITER_BYTES:
                asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
                if struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK:
                    return True
        finally:
            os.close(file)
        return False

    def _json(self, *arguments: str) -> Any:
        return json.loads(self._run(*arguments))

    def _run(self, *arguments: str) -> str:
        command = ("qemu-img", *arguments)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=self._timeout, check=False)
        except FileNotFoundError:
            raise BackendError("qemu-img is not installed, and qcow2 images need it") from None
        except subprocess.TimeoutExpired:
            raise Unavailable(f"qemu-img {arguments[0]} did not end within {self._timeout:g} s") from None
        if done.returncode:
            raise BackendError(f"qemu-img {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout


def _plain(path: Path) -> str:
    # A name with a colon would be read as a protocol.
    return f"file:{path}"


def _shape(path: Path, header: bytes, file: Any) -> Shape:
    if len(header) < 72 or header[:4] != _MAGIC:  # noqa: PLR2004 -- the length of a version 2 header
        raise Refused(f"{path} is declared as qcow2 but has no qcow2 header; correct the declaration or the file")
    version, name_at, name_length, cluster_bits = struct.unpack(">IQII", header[4:24])
    (size,) = struct.unpack(">Q", header[24:32])
    features = struct.unpack(">Q", header[72:80])[0] if version > 2 else 0  # noqa: PLR2004 -- version 2 has none
    if features & _EXTERNAL_DATA:
        raise NotSupported(f"{path} keeps its data in another file; such qcow2 images cannot be copied as one file")
    if features & _CORRUPT:
        raise Refused(f"{path} is marked corrupt by QEMU; repair it with qemu-img check -r all")
    name = None
    if name_at:
        file.seek(name_at)
        name = os.fsdecode(file.read(name_length))
    return Shape(size, 1 << cluster_bits, name)


def _backing(entry: dict[str, Any]) -> BackingFile:
    path = Path(str(entry["filename"]).removeprefix("file:")).resolve()
    found = path.stat()
    return BackingFile(str(path), str(entry["format"]), found.st_size, found.st_mtime_ns, found.st_ino)


def same_file(first: Path, second: Path) -> bool:
    """Whether two names lead to one file; False if either leads nowhere."""
    try:
        return first.samefile(second)
    except OSError:
        return False


def any_written(images: Images, paths: Sequence[Path]) -> bool:
    """Whether any of these images is held open for writing; missing ones are not."""
    return any(path.exists() and images.written_by_someone(path) for path in paths)
