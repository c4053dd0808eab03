"""Small files that are read again when they have changed, whatever the clocks say of when that was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stillframe.drivers.image_files.cache import Cache
from tests.lab.clocks import WrongClock

#: How often a file is read that is asked for twice right after it was made.
TWICE = """
import sys
from pathlib import Path
from stillframe.drivers.image_files.cache import Cache

path, read = Path(sys.argv[1]), []
path.write_text("a")
cache = Cache(lambda one: read.append(one), 8)
cache.get(path), cache.get(path)
print(len(read))
"""


@pytest.mark.parametrize("ahead", [0, 86400, -86400])
def test_a_file_that_may_just_have_changed_is_read_again_whatever_our_clock_says(tmp_path: Path, ahead: int) -> None:
    environment = {**os.environ, **WrongClock(tmp_path, ahead).variables}
    command = [sys.executable, "-c", TWICE, str(tmp_path / "file")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "2\n"


def test_a_file_that_has_looked_the_same_for_a_second_is_read_once(tmp_path: Path) -> None:
    read: list[str] = []
    now = [100.0]

    def content(path: Path) -> str:
        read.append(path.name)
        return path.read_text()

    cache = Cache(content, 2, lambda: now[0])
    file = tmp_path / "file"
    file.write_text("a")
    for seconds in (0.0, 0.9, 0.2, 5.0):
        now[0] += seconds
        assert cache.get(file) == "a"
    assert len(read) == 3
    file.write_text("bb")
    assert (cache.get(file), cache.get(file)) == ("bb", "bb")
    now[0] += 2
    assert (cache.get(file), cache.get(file)) == ("bb", "bb")
    assert len(read) == 6
    # It keeps what was asked for last.
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
        cache.get(tmp_path / name)
    assert (cache.get(file), len(read)) == ("bb", 9)
    with pytest.raises(FileNotFoundError):
        cache.get(tmp_path / "gone")
