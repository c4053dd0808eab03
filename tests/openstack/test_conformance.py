"""The drivers for Nova and Cinder keep the contracts of every driver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stillframe.drivers.openstack.cloud import Endpoints, connect
from stillframe.settings import load
from tests.conformance.test_compute import TestLooking, TestPower, TestQuiesce
from tests.conformance.test_storage import TestChecks, TestCopies, TestRestore
from tests.lab.openstack.fixtures import needs_lab
from tests.lab.openstack.keystone import service_options
from tests.lab.openstack.lab import Lab
from tests.lab.openstack.services import ini
from tests.openstack.world import CloudWorld

__all__ = ["TestChecks", "TestCopies", "TestLooking", "TestPower", "TestQuiesce", "TestRestore"]

pytestmark = [pytest.mark.openstack, needs_lab]


@pytest.fixture
def world(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudWorld]:
    """The cloud, as the service's user reaches it."""
    config = tmp_path_factory.mktemp("settings") / "stillframe.conf"
    config.write_text(ini({"openstack": service_options(lab.keystone.auth_url, "stillframe")}))
    made = CloudWorld(lab, connect(load([str(config)]).conf, Endpoints("internal", None)))
    yield made
    made.close()
