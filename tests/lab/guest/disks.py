"""The guest's three disks: how they are made, and how they are looked at."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB: Final = 1 << 20
ORDER_SIZE: Final = 8 * MIB
FILES_SIZE: Final = 64 * MIB

Format = Literal["raw", "qcow2"]


@dataclass(frozen=True, slots=True)
class Disks:
    """Two disks with an order between them, and one with a file system; the guest sees them in this order."""

    order_a: Path
    order_b: Path
    files: Path

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        return self.order_a, self.order_b, self.files

    def copied_to(self, directory: Path) -> Disks:
        """Their present content in another directory, shared with the originals where the file system can do that."""
        directory.mkdir(parents=True, exist_ok=True)
        return Disks(*(copied(path, directory / path.name) for path in self.paths))


def make_disks(directory: Path, image_format: Format = "raw") -> Disks:
    """Three new disks: two blank ones, and one with an empty ext4."""
    directory.mkdir(parents=True, exist_ok=True)
    disks = Disks(*(directory / f"{name}.{image_format}" for name in ("order-a", "order-b", "files")))
    for path, size in zip(disks.paths, (ORDER_SIZE, ORDER_SIZE, FILES_SIZE), strict=True):
        if image_format == "raw":
            path.touch()
            _set_size(path, size)
        else:
            _run("qemu-img", "create", "-q", "-f", image_format, str(path), str(size))
    if image_format == "raw":
        _make_filesystem(disks.files)
    else:
        with TemporaryDirectory(dir=directory) as scratch:
            raw = Path(scratch, "raw")
            raw.touch()
            _set_size(raw, FILES_SIZE)
            _make_filesystem(raw)
            _run("qemu-img", "convert", "-f", "raw", "-O", image_format, str(raw), str(disks.files))
    return disks


def format_of(path: Path) -> Format:
    with path.open("rb") as image:
        return "qcow2" if image.read(4) == b"QFI\xfb" else "raw"


def copied(path: Path, target: Path) -> Path:
    _run("cp", "--reflink=auto", "--sparse=always", str(path), str(target))
    return target


def converted(path: Path, target: Path) -> Path:
    """What the image holds, as raw bytes in another file."""
    if format_of(path) == "raw":
        return copied(path, target)
    _run("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", str(path), str(target))
    return target


@contextmanager
def raw_copy(path: Path) -> Iterator[Path]:
    """A throw-away copy of what the image holds, as raw bytes in a file; the image itself is only read."""
    with TemporaryDirectory(dir=path.parent) as scratch:
        yield converted(path, Path(scratch, "raw"))


def _set_size(path: Path, size: int) -> None:
    with path.open("r+b") as image:
        image.truncate(size)


def _make_filesystem(path: Path) -> None:
    _run("mkfs.ext4", "-q", "-F", "-J", "size=4", str(path))


def _run(*arguments: str) -> None:
    subprocess.run(arguments, check=True, capture_output=True)
