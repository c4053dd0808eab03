"""File systems in files, mounted for as long as they are needed; this needs root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

GIB: Final = 1 << 30
# Not in memory, where /tmp often is.
ON_DISK: Final = "/var/tmp"  # noqa: S108


@contextmanager
def mounted(kind: str, size: int = 4 * GIB) -> Iterator[Path]:
    """A folder on a new file system of this kind (xfs, btrfs, ext4), `size` in bytes, allocated as it is filled."""
    if os.geteuid() != 0:
        raise PermissionError("mounting file systems needs root")
    with TemporaryDirectory(prefix="bench-", dir=ON_DISK) as name:
        image, point = Path(name, "image"), Path(name, kind)
        point.mkdir()
        with image.open("wb") as file:
            file.truncate(size)
        subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=True)
        try:
            yield point
        finally:
            subprocess.run(["umount", "--lazy", str(point)], check=True)
