"""Files and folders that are the service's own: nobody else may look into them, whatever the umask."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

_FILE: Final = 0o600
_FOLDER: Final = 0o700
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def opener(path: str, flags: int) -> int:
    """For `open`: a file that it makes is for its owner only; one that is there already is left as it is."""
    return os.open(path, flags, _FILE)


def make_folder(path: Path) -> None:
    """Make a folder and its parents; those that are there already are left as they are."""
    for folder in reversed([path, *path.parents]):
        with suppress(FileExistsError):
            folder.mkdir(mode=_FOLDER)


def make_file(path: Path) -> None:
    """Make an empty file, or take everybody else's rights to the one that is there, if that is ours to do."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE)
    try:
        mode = stat.S_IMODE(os.fstat(file).st_mode)
        if mode & _OTHERS:
            with suppress(PermissionError):
                os.fchmod(file, mode & ~_OTHERS)
    finally:
        os.close(file)
