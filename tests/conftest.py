"""What holds for all tests."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest ones first: started last, one of them would keep everybody waiting on one processor."""
    items.sort(key=lambda item: item.get_closest_marker("crash") is None)
