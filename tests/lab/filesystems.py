"""File systems in files, mounted for as long as they are needed; this needs root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def mounted(folder: Path, kind: str, size: int) -> Iterator[Path]:
    """A new file system of this kind (xfs, btrfs, ext4), `size` in bytes, in a file in `folder`."""
    if os.geteuid() != 0:
        raise PermissionError("mounting file systems needs root")
    image, point = folder / f"{kind}.img", folder / kind
    point.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=True)
        image.unlink()


@contextmanager
def exfat(folder: Path, size: int) -> Iterator[Path]:
    """A new exFAT, which has neither hard links nor nameless files, access rights, attributes or leases."""
    if os.geteuid() != 0:
        raise PermissionError("mounting file systems needs root")
    image, point = folder / "exfat.img", folder / "exfat"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.exfat", str(image)], check=True, capture_output=True)
    found = subprocess.run(
        ["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        # Not by the kernel, which need not know it. Without the option, everybody may write to everything.
        subprocess.run(["mount.exfat-fuse", "-o", "umask=0022", found, str(point)], check=True, capture_output=True)
        try:
            yield point
        finally:
            subprocess.run(["umount", str(point)], check=True)
    finally:
        subprocess.run(["losetup", "--detach", found], check=True)
