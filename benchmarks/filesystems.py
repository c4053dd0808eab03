"""File systems in files, mounted for as long as they are needed; this needs root."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.lab import filesystems as files

GIB: Final = 1 << 30
# Not in memory, where /tmp often is.
ON_DISK: Final = "/var/tmp"  # noqa: S108


@contextmanager
def mounted(kind: str, size: int = 4 * GIB) -> Iterator[Path]:
    """A folder on a new file system of this kind (xfs, btrfs, ext4), `size` in bytes, allocated as it is filled."""
    with TemporaryDirectory(prefix="bench-", dir=ON_DISK) as name, files.mounted(Path(name), kind, size) as point:
        yield point
