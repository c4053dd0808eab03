"""One service for most stories: each has instances of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.program import Place, started
from tests.databases import database_url, mariadb_server, postgresql_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["database_url", "mariadb_server", "place", "postgresql_server", "served"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Settings without a service."""
    made = Place(tmp_path)
    made.configure()
    return made


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A running service and the place to talk to it from."""
    made = Place(tmp_path_factory.mktemp("served"))
    made.configure()
    with started(made, "serve"):
        yield made
