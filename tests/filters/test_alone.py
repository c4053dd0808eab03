"""What the filters bring into the processes of Nova and Cinder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import stillframe

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import stillframe.filters
loaded = {name for name in sys.modules if name.partition(".")[0] not in sys.stdlib_module_names}
print(*sorted(loaded - {"__main__"}))
"""


def test_the_filters_need_nothing_but_the_standard_library_and_the_table_of_paths() -> None:
    source = str(Path(stillframe.__file__).parents[1])
    # Without the site's packages, so that the import of any would fail.
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, source]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert loaded == ["stillframe", "stillframe.filters", "stillframe.paths"]
