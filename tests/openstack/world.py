"""The lab's cloud as a world for the drivers' conformance suites."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from stillframe.domain.instance import Instance
from stillframe.domain.snapshot import ConsistencyLevel
from stillframe.drivers.openstack.backends import Backends
from stillframe.drivers.openstack.cinder import CinderStorage
from stillframe.drivers.openstack.cloud import Cloud, Endpoints, connect
from stillframe.drivers.openstack.nova import NovaCompute
from stillframe.drivers.openstack.pausing import Pausing
from stillframe.drivers.openstack.reverting import Reverter, Times
from stillframe.drivers.openstack.volumes import Looking
from stillframe.drivers.openstack.waiting import Waiting
from stillframe.settings import load
from stillframe.testing.world import SIZE, World, a_call
from tests.lab.openstack.keystone import service_options
from tests.lab.openstack.lab import Lab
from tests.lab.openstack.services import Option, ini, until
from tests.lab.openstack.tenant import PATIENCE, Tenant, checked

GIB: Final = 1 << 30
PROJECTS: Final = {"mine": "alpha", "project": "alpha", "other": "beta"}
#: Whom the drivers log in as that tests call themselves.
USER: Final = "stillframe-drivers"


def connected(lab: Lab, folder: Path, **options: Option) -> Cloud:
    """The cloud as the service's user reaches it; `options` of `[openstack]` in the place of the lab's."""
    config = folder / "cloud.conf"
    config.write_text(ini({"openstack": {**service_options(lab.keystone.auth_url, USER), **options}}))
    return connect(load([str(config)]).conf, Endpoints("internal", None))


class CloudWorld(World):
    """Servers that boot from volumes; of these, as many bytes are looked at as a disk of the suites has."""

    def __init__(
        self, lab: Lab, cloud: Cloud, *, reimage: bool = True, timeout: float = 60, pause_seconds: float = 0
    ) -> None:
        self.lab = lab
        waiting, looking = Waiting(), Looking(cloud)
        times = Times(timeout=60, late=2.0)
        reverter = Reverter(cloud, looking, waiting, Backends(cloud, ()), times, reimage=reimage)
        self.storage = CinderStorage(cloud, looking, waiting, reverter, timeout=timeout)
        pausing = Pausing(cloud, waiting, seconds=pause_seconds)
        self.compute = NovaCompute(cloud, waiting, pausing, pauses=bool(pause_seconds))
        self.tenants = {name: Tenant(lab, f"{name}-member") for name in set(PROJECTS.values())}

    def close(self) -> None:
        for copy in self.storage.find(None):
            self.storage.delete(a_call(), copy.reference)
        for tenant in self.tenants.values():
            tenant.remove_everything()

    def add(self, sizes: Sequence[int] = (SIZE,), project_id: str = "project") -> Instance:
        tenant = self.tenants[PROJECTS[project_id]]
        if self.compute.capabilities.quiesce is not ConsistencyLevel.NONE and len(sizes) == 1:
            # One volume alone is of one instant anyway: for it no server is paused.
            sizes = (*sizes, SIZE)
        server_id = tenant.create_server([tenant.create_volume(self.size(size) // GIB) for size in sizes])
        tenant.stop(server_id)
        return self.compute.get_instance(server_id)

    def size(self, asked: int) -> int:
        """Cinder counts in GiB; the disks that most is done with are the small ones here."""
        return GIB if asked == SIZE else 2 * GIB

    def project(self, name: str) -> str:
        return self.lab.projects[PROJECTS[name]]

    def forget(self, instance: Instance) -> None:
        compute = self.lab.api("admin", "compute")
        compute.delete(f"/servers/{instance.id}")
        until(lambda: compute.get(f"/servers/{instance.id}").status_code == 404, PATIENCE)

    def lose(self, volume_id: str) -> None:
        """Cinder deletes no volume of which there are snapshots; but its back end may be out of order."""
        self.tenants["alpha"].reset(volume_id, "maintenance")

    def resize(self, volume_id: str, size: int) -> None:
        tenant = self.tenants["alpha"]
        if size < SIZE:
            pytest.skip("volumes of this platform never shrink")
        tenant.reset(volume_id, "available")
        # Cinder itself finds it attached when it has extended it.
        body = {"os-extend": {"new_size": self.size(size) // GIB}}
        checked(tenant.administrator.post(f"/volumes/{volume_id}/action", json=body))
        tenant.wait_volume(volume_id, "in-use")

    def read(self, volume_id: str) -> bytes:
        return self.lab.read_volume(volume_id, 0, SIZE)

    def write(self, volume_id: str, offset: int, data: bytes) -> None:
        self.lab.write_volume(volume_id, offset, data)
