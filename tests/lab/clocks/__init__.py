"""Machines whose clock is wrong: the time of day of one process, which can be set while it runs.

A time namespace does not do: it shifts the clocks that count from the start of the machine, and not the time of day.
"""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).with_name("wrong.c")


class WrongClock:
    """The clock of each process that is started with `variables`, wrong by `seconds`, which may be set anew."""

    def __init__(self, folder: Path, seconds: int = 0) -> None:
        self._file, library = folder / "wrong-clock", folder / "wrong-clock.so"
        self.set(seconds)
        command = ["gcc", "-Wall", "-Werror", "-O1", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)]
        subprocess.run(command, check=True, timeout=120)
        self.variables = {"LD_PRELOAD": str(library), "WRONG_CLOCK": str(self._file)}

    def set(self, seconds: int) -> None:
        """From now on it is wrong by so many seconds."""
        # In place: the processes have mapped it.
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("l", seconds))
