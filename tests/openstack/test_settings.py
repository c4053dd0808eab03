"""Settings that the drivers for a cloud do not work with; this needs no cloud."""

from __future__ import annotations

import pytest

from stillframe.domain.errors import InvalidInput
from stillframe.drivers.registry import open_drivers
from stillframe.settings import load

CLOUD: list[tuple[str | None, str, object]] = [("drivers", "compute", "nova"), ("drivers", "storage", "cinder")]


@pytest.mark.parametrize("strategy", ["noauth", "http_basic"])
def test_callers_whom_the_cloud_does_not_know_are_not_served_from_it(strategy: str) -> None:
    settings = load(overrides=[*CLOUD, (None, "auth_strategy", strategy)])
    with pytest.raises(InvalidInput, match="keystone"):
        open_drivers(settings)


def test_a_cloud_without_a_way_to_log_in_is_refused() -> None:
    settings = load(overrides=[*CLOUD, (None, "auth_strategy", "keystone")])
    with pytest.raises(InvalidInput, match="auth_type"):
        open_drivers(settings)
