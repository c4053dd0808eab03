"""What holds for all tests."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from stillframe.domain.errors import StillframeError


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest ones first: started last, one of them would keep everybody waiting on one processor."""
    items.sort(key=lambda item: not any(item.get_closest_marker(kind) for kind in ("crash", "guest")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Whoever looks for the cause of a failure needs the words of the platform too, which no message has."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, StillframeError) and call.excinfo.value.detail:
        report.sections.append(("what the platform said", call.excinfo.value.detail))
    return report
