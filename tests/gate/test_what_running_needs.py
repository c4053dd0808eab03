"""What `make run` installs is enough to run: nothing is there by chance because the tests need it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
# All modules are imported where nothing can be but what the lock for running names.
_SCRIPT: Final = """
import importlib, importlib.metadata, pkgutil, re, sys

locked = {name for name in re.findall(r"^([a-z0-9.-]+)==", open(sys.argv[1]).read(), re.M)}
def plain(name): return re.sub(r"[-_.]+", "-", name).lower()
allowed = locked | {"stillframe", "pip", "setuptools"}
foreign = {
    module
    for module, owners in importlib.metadata.packages_distributions().items()
    if not {plain(owner) for owner in owners} & allowed
}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in foreign:
            raise ModuleNotFoundError(f"{name} is not in the lock for running", name=name)

assert "pytest" in foreign
sys.meta_path.insert(0, Absent())
import stillframe
# What is loaded by others: by Cinder, and by the tests of an author of drivers, who has pytest.
others = ("stillframe.cinder_extension", "stillframe.testing")
for module in pkgutil.walk_packages(stillframe.__path__, "stillframe."):
    if not module.name.startswith(others):
        importlib.import_module(module.name)
"""


def test_the_lock_for_running_has_all_that_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(ROOT / "requirements.lock")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
