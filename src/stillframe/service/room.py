"""How much room there is on a file system."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def free_part(folder: Path) -> float:
    """The free part of a folder's file system, from 0 to 1: of its room or of its files, whichever is less.

    Not a number where nobody can tell. Some file systems have no number of files that they can hold.
    """
    try:
        found = os.statvfs(folder)
    except OSError:
        return math.nan
    parts = [(found.f_bavail, found.f_blocks), (found.f_favail, found.f_files)]
    return min((free / whole for free, whole in parts if whole), default=math.nan)
