"""Disks of instances with real data in them, and what copying them costs without the service."""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
_FICLONE: Final = 0x40049409  # linux/fs.h


def make(folder: Path, name: str, count: int, size: int = 64 * MIB) -> list[Path]:
    """Raw disks full of data that does not compress, durable."""
    paths = [folder / f"{name}-{number}.raw" for number in range(count)]
    block = random.randbytes(MIB)
    for path in paths:
        with path.open("wb") as file:
            for _ in range(size // MIB):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
    return paths


def cloned_in_process(paths: Sequence[Path], folder: Path) -> None:
    """What `cp --reflink=always` asks of the kernel, and nothing else."""
    for path in paths:
        with path.open("rb") as source, (folder / path.name).open("wb") as target:
            fcntl.ioctl(target, _FICLONE, source.fileno())


def cloned_by_cp(paths: Sequence[Path], folder: Path) -> None:
    """One `cp --reflink=always` after another."""
    for path in paths:
        subprocess.run(["cp", "--reflink=always", path, folder / path.name], check=True)


def cloned_durably(paths: Sequence[Path], folder: Path) -> None:
    """As `cloned_by_cp`, and every file and its folder written out, as a copy must be that is to be relied on."""
    for path in paths:
        target = folder / path.name
        subprocess.run(["cp", "--reflink=always", path, target], check=True)
        subprocess.run(["sync", target, folder], check=True)


def emptied(folder: Path) -> Path:
    """The folder with nothing in it."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    return folder
