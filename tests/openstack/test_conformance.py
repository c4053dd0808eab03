"""The drivers for Nova and Cinder keep the contracts of every driver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stillframe.testing.compute import TestLooking, TestPower, TestQuiesce
from stillframe.testing.storage import TestChecks, TestCopies, TestRestore
from tests.lab.openstack.fixtures import needs_lab
from tests.lab.openstack.lab import Lab
from tests.openstack.world import CloudWorld, connected

__all__ = ["TestChecks", "TestCopies", "TestLooking", "TestPower", "TestQuiesce", "TestRestore"]

pytestmark = [pytest.mark.openstack, needs_lab]


@pytest.fixture
def world(lab: Lab, tmp_path: Path) -> Iterator[CloudWorld]:
    """The cloud, as the service's user reaches it."""
    made = CloudWorld(lab, connected(lab, tmp_path))
    yield made
    made.close()
