from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from stillframe.drivers.storage_virtualize.options import Options, Strategy
from tests.conformance.worlds import ArrayWorld
from tests.lab.storage_virtualize.array import Array
from tests.lab.storage_virtualize.objects import Behaviour
from tests.lab.storage_virtualize.server import simulated

Make = Callable[..., ArrayWorld]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes worlds; what is not an option of the driver is how the array behaves."""
    with ExitStack() as stack:

        def new(strategy: Strategy = Strategy.FLASHCOPY, copy_rate: int = 150, **behaviour: Any) -> ArrayWorld:
            array = Array(behaviour=Behaviour(**{"speed": 100.0, **behaviour}))
            served = stack.enter_context(simulated(tmp_path, array))
            options = Options(poll_seconds=0.01, strategy=strategy, copy_rate=copy_rate)
            world = ArrayWorld(tmp_path, served, options)
            stack.callback(world.close)
            return world

        yield new


@pytest.fixture
def world(make: Make) -> ArrayWorld:
    return make()
