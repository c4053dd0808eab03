"""The lab for pytest: one for the session, and a cloud user's way of doing things in it.

A conftest imports the fixtures by name. Tests that use them carry the marker `openstack`, and are skipped unless
`STILLFRAME_OPENSTACK_LAB` is 1; `STILLFRAME_OPENSTACK_CEPH` set to 1 adds the RBD back end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.lab.openstack.lab import Lab, Options, openstack_lab
from tests.lab.openstack.tenant import Tenant

__all__ = ["lab", "lab_options", "needs_lab", "tenant"]

needs_lab = pytest.mark.skipif(
    os.environ.get("STILLFRAME_OPENSTACK_LAB") != "1",
    reason="needs the OpenStack lab, which `make openstack-test` starts (STILLFRAME_OPENSTACK_LAB=1)",
)


@pytest.fixture(scope="session")
def lab_options() -> Options:
    """What the session's lab is to be like; a conftest may override it, with filters for example."""
    return Options(ceph=os.environ.get("STILLFRAME_OPENSTACK_CEPH") == "1")


@pytest.fixture(scope="session")
def lab(lab_options: Options) -> Iterator[Lab]:
    """The lab, up and running."""
    with openstack_lab(lab_options) as running:
        yield running


@pytest.fixture
def tenant(lab: Lab) -> Iterator[Tenant]:
    """The member of the project alpha; after the test what it made is gone and all of the lab runs."""
    made = Tenant(lab, "alpha-member")
    yield made
    lab.mend()
    made.remove_everything()
