from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.api.running import Mappings, Running, running

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One service for all stories: each has a project of its own, which in this mode the path names."""
    with running(tmp_path_factory.mktemp("service"), flashcopy=Mappings()) as service:
        yield service
