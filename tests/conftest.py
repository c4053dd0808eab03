"""What holds for all tests."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from stillframe.domain.errors import StillframeError

# What tests with a guest and crash matrices take that do not say it.
_LONG = 30.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest ones first, shared out: begun last, one of them would keep everybody waiting on one processor."""
    items.sort(key=_seconds, reverse=True)
    long = [item for item in items if _seconds(item)]
    short = items[len(long) :]
    # Each process begins with a part of the list as it stands; what others have finished their part take is its end.
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    cuts = [number * len(short) // processes for number in range(processes + 1)]
    parts = [[*long[number::processes], *short[cuts[number] : cuts[number + 1]]] for number in range(processes)]
    items[:] = [item for part in parts for item in part]


def _seconds(item: pytest.Item) -> float:
    if (told := item.get_closest_marker("lasts")) is not None:
        return float(told.args[0])
    return _LONG if any(item.get_closest_marker(kind) for kind in ("crash", "guest")) else 0.0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Whoever looks for the cause of a failure needs the words of the platform too, which no message has."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, StillframeError) and call.excinfo.value.detail:
        report.sections.append(("what the platform said", call.excinfo.value.detail))
    return report
