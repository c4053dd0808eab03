"""Tests in a real OpenStack, small as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.openstack.fixtures import lab, lab_options, tenant
from tests.lab.openstack.lab import Lab
from tests.lab.openstack.tenant import Tenant
from tests.lab.scripted.cloud import scripted_cloud
from tests.openstack.guest import Guest
from tests.openstack.played import PlayedWorld, playing
from tests.openstack.service import Stillframe, User, own_user, serving

__all__ = ["lab", "lab_options", "tenant"]


@pytest.fixture(scope="session")
def service(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stillframe]:
    with serving(lab, tmp_path_factory.mktemp("stillframe")) as running:
        yield running


@pytest.fixture
def user(lab: Lab, service: Stillframe) -> User:
    """A member of the project alpha."""
    return own_user(lab, service, "alpha-member")


@pytest.fixture
def kind() -> str:
    """The type of the guest's volumes; see `on_each_back_end`."""
    return "rawfile"


@pytest.fixture
def guest(lab: Lab, tenant: Tenant, kind: str) -> Guest:
    if kind not in lab.volume_types:
        pytest.skip("this lab has no Ceph (STILLFRAME_OPENSTACK_CEPH=1)")
    volumes = [tenant.create_volume(kind=kind) for _ in range(3)]
    return Guest(lab, tenant, tenant.create_server(volumes), volumes)


@pytest.fixture
def played(tmp_path: Path) -> Iterator[PlayedWorld]:
    """The service over a cloud that is played; this needs no OpenStack."""
    with playing(tmp_path) as world:
        yield world


@pytest.fixture
def pausing(tmp_path: Path) -> Iterator[PlayedWorld]:
    """The same, where running servers are paused while they are cut."""
    with scripted_cloud() as cloud:
        world = PlayedWorld(tmp_path, cloud, quiesce="pause", pause_seconds=20)
        yield world
        world.stop()
