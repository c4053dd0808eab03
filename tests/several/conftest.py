from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab.storage_virtualize.array import Array
from tests.lab.storage_virtualize.objects import Behaviour
from tests.lab.storage_virtualize.server import SimulatedArray, simulated


@pytest.fixture
def arrays(tmp_path: Path) -> Iterator[dict[str, SimulatedArray]]:
    """Two arrays, by the names that they have in the settings."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(simulated(tmp_path, Array(name, behaviour=Behaviour(speed=100.0))))
            for name in ("a", "b")
        }
