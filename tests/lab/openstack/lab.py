"""The lab as a whole: brings its services up in their order, and gives tests what they need of them."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keystoneauth1.adapter import Adapter

from tests.lab.openstack.ceph import Ceph
from tests.lab.openstack.cinder import Backend, Cinder
from tests.lab.openstack.database import Database
from tests.lab.openstack.filters import Filter
from tests.lab.openstack.glance import Glance, add_image
from tests.lab.openstack.installation import installed, missing_packages
from tests.lab.openstack.keystone import USERS, Keystone
from tests.lab.openstack.nova import Nova
from tests.lab.openstack.placement import Placement
from tests.lab.openstack.rabbit import Rabbit
from tests.lab.openstack.services import HOST, MARK, Option, Place, Service, answers, free_port, until
from tests.lab.openstack.watchdog import guarded

__all__ = ["Lab", "Options", "openstack_lab"]

# As the hypervisor has them.
PAUSED = 3
NO_PAUSE = "cannot_pause"
# For what the services find out in their own time.
_PATIENCE = 240.0
_CONSISTENT = {"consistent_group_snapshot_enabled": "<is> True"}
# Microversions that have everything these services offer and tests look at.
_MICROVERSIONS = {"compute": "2.96", "volumev3": "3.71"}


@dataclass(frozen=True)
class Options:
    """What a lab is to be like."""

    ceph: bool = False
    nova_filter: Filter | None = None
    cinder_filter: Filter | None = None
    volume_extensions: Sequence[str] = ()
    # Whether Cinder cuts a snapshot of its own before each revert, as it does for most drivers.
    backup_before_revert: bool = False
    # Whether the folder, with all logs, stays when the lab has ended.
    keep: bool = False


class Lab:
    """A running OpenStack; made by `openstack_lab`."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.folder = folder
        self.options = options
        self.place = Place(folder, installed())
        self.volume_folder = folder / "rawfile"
        self.database = Database(self.place)
        self.rabbit = Rabbit(self.place)
        self.keystone = Keystone(self.place)
        self.placement = Placement(self.place)
        self.glance = Glance(self.place)
        self.nova = Nova(self.place, self.rabbit)
        self.ceph = Ceph(self.place) if options.ceph else None
        self.cinder = Cinder(self.place, self.rabbit, self._backends())
        port = free_port()
        self._network_url = f"http://{HOST}:{port}"
        stub = [self.place.program("python"), "-P", "-m", "tests.lab.openstack.network_stub", str(port)]
        self.network = Service(self.place, "network", stub, answers(f"{self._network_url}/"))
        self.image_id = ""
        self.flavor_id = ""
        self.group_type_id = ""
        self.volume_types: dict[str, str] = {}
        # The ids of what a test has left and nobody could remove.
        self.given_up: set[str] = set()

    @property
    def services(self) -> dict[str, Service]:
        """All services by name, in the order in which they start; the database stands apart."""
        plain = [self.rabbit, self.keystone, self.network, self.placement, self.glance]
        return {one.name: one for one in [*plain, *self.nova.services, *self.cinder.services]}

    @property
    def projects(self) -> dict[str, str]:
        """The ids of the projects by name."""
        return self.keystone.projects

    @property
    def _migrated(self) -> tuple[Keystone, Placement, Glance, Nova, Cinder]:
        return self.keystone, self.placement, self.glance, self.nova, self.cinder

    def start(self) -> None:
        """Bring everything up, with the projects, users, types, flavor and image in place."""
        (self.folder / "logs").mkdir()
        self._link_ceph_libraries()
        self.rabbit.begin()
        if self.ceph is not None:
            self.ceph.begin()
        self.database.start(self._configure_and_migrate, *(service.migrate for service in self._migrated))
        if not self.keystone.file.exists():
            self._configure()
        for service in (self.keystone, self.network, self.placement, self.glance):
            service.begin()
        self.rabbit.wait()
        if self.ceph is not None:
            self.ceph.wait()
        for service in self.cinder.services:
            service.begin()
        self.keystone.wait()
        self.keystone.populate(self._endpoints())
        # Nova's services log in and look for Placement first of all, and end if they can not.
        self.placement.wait()
        for service in self.nova.services:
            service.begin()
        for service in self.services.values():
            service.wait()
        self._populate()

    def mend(self) -> None:
        """Bring back what a test that broke off has left dead, frozen or about to fail."""
        self.clear_faults()
        self.let_guests_pause(possible=True)
        for service in self.services.values():
            if service.running:
                service.thaw()
            else:
                service.start()

    def api(self, user: str, service: str, microversion: str | None = None) -> Adapter:
        """The API of a service (`compute`, `volumev3`, `image`, ...) as a user; errors are replies, not raised."""
        return Adapter(
            self.keystone.session(user),
            service_type=service,
            default_microversion=microversion or _MICROVERSIONS.get(service),
            raise_exc=False,
        )

    def token(self, user: str) -> str:
        return str(self.keystone.session(user).get_token())

    def clouds(self) -> dict[str, object]:
        """The content of a clouds.yaml: a cloud for each user, named like the user."""
        entries = {}
        for user in USERS:
            auth = self.keystone.credentials(user)
            entries[user] = {"auth": auth, "region_name": "lab", "identity_api_version": 3}
        return {"clouds": entries}

    def extend_apis(
        self, nova_filter: Filter | None = None, cinder_filter: Filter | None = None, extensions: Sequence[str] = ()
    ) -> None:
        """Give the APIs of Nova and Cinder these filters and volume extensions, and no others; both restart."""
        self.nova.write_paste(nova_filter)
        self.cinder.write_paste(cinder_filter)
        self.cinder.write_extensions(extensions)
        for service in (self.nova.api, self.cinder.api):
            service.stop()
            service.begin()
        self.nova.api.wait()
        self.cinder.api.wait()

    def read_volume(self, volume_id: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of a volume as they lie in its back end; by default all from `offset` on."""
        path = self.volume_folder / f"volume-{volume_id}"
        if not path.exists() and self.ceph is not None:
            return self.ceph.read(f"volume-{volume_id}", offset, length)
        with path.open("rb") as file:
            file.seek(offset)
            return file.read() if length is None else file.read(length)

    def write_volume(self, volume_id: str, offset: int, data: bytes, guest: str | None = None) -> bool:
        """Write to a volume in its back end, as a guest would; no snapshot is cut while this writes.

        If a `guest` is named, nothing is written while that is paused; whether it was written.
        """
        path = self.volume_folder / f"volume-{volume_id}"
        if not path.exists() and self.ceph is not None:
            self.ceph.write(f"volume-{volume_id}", offset, data)
            return True
        with self._volumes_locked(), path.open("r+b") as file:
            if guest is not None and self.is_paused(guest):
                return False
            if offset + len(data) > path.stat().st_size:
                raise ValueError("that is beyond the volume's end")
            file.seek(offset)
            file.write(data)
        return True

    def order_fault(
        self, call: str, *, target: str = "*", action: str = "fail", seconds: float = 0, times: int = 1
    ) -> None:
        """Let the rawfile driver fail.

        `call` is a method of the driver (`revert_to_snapshot`); `target` is the id of a volume, snapshot or group in
        its arguments. `action` is `fail` (it does not happen), `fail_after` (it happens, and fails then), `hang` (it
        happens after so many seconds, or once the faults are cleared) or `lack` (the driver says that it cannot do
        that at all).
        """
        order = {"call": call, "id": target, "action": action, "seconds": seconds, "times": times}
        self._write_orders([*self.faults(), order])

    def faults(self) -> list[dict[str, object]]:
        """The orders as they stand; `times` says how often each will still be carried out."""
        file = self.volume_folder / "faults.json"
        with self._volumes_locked():
            return list(json.loads(file.read_text())) if file.exists() else []

    def clear_faults(self) -> None:
        self._write_orders([])

    def guests(self) -> dict[str, Any]:
        """What the hypervisor knows: `guests` (name, power state), `disks` (volume ids at the last start), `mounts`."""
        file = self.nova.folder / "guests.json"
        return dict(json.loads(file.read_text())) if file.exists() else {"guests": {}, "disks": {}, "mounts": {}}

    def is_paused(self, server_id: str) -> bool:
        """Whether the hypervisor has paused a server."""
        return bool(self.guests()["guests"].get(server_id, {}).get("state") == PAUSED)

    def let_guests_pause(self, *, possible: bool) -> None:
        """Whether the hypervisor can pause a guest; some cannot."""
        marker = self.nova.folder / NO_PAUSE
        if possible:
            marker.unlink(missing_ok=True)
        else:
            marker.touch()

    def _write_orders(self, orders: list[dict[str, object]]) -> None:
        with self._volumes_locked():
            unfinished = self.volume_folder / "faults.new"
            unfinished.write_text(json.dumps(orders))
            unfinished.replace(self.volume_folder / "faults.json")

    @contextmanager
    def _volumes_locked(self) -> Iterator[None]:
        with (self.volume_folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _backends(self) -> list[Backend]:
        raw: dict[str, Option] = {
            "volume_driver": "tests.lab.openstack.rawfile.RawFileDriver",
            "rawfile_folder": str(self.volume_folder),
            "rawfile_backup_before_revert": self.options.backup_before_revert,
        }
        backends = [Backend("rawfile", raw, {"rawfile": {}, "rawfile-group": _CONSISTENT})]
        if self.ceph is not None:
            backends.append(Backend("rbd", self.ceph.cinder_options(), {"rbd": {}}))
        return backends

    def _endpoints(self) -> dict[str, tuple[str, str]]:
        return {
            "compute": ("nova", f"{self.nova.api.url}/v2.1"),
            "volumev3": ("cinderv3", f"{self.cinder.api.url}/v3/$(project_id)s"),
            "image": ("glance", self.glance.url),
            "placement": ("placement", self.placement.url),
            "network": ("neutron", self._network_url),
        }

    def _configure(self) -> None:
        self.keystone.configure(self.database)
        self.placement.configure(self.database, self.keystone)
        self.glance.configure(self.database, self.keystone)
        self.nova.configure(self.database, self.keystone, self._network_url, self.options.nova_filter)
        self.cinder.configure(self.database, self.keystone, self.glance.url, self.options.cinder_filter)
        self.cinder.write_extensions(self.options.volume_extensions)

    def _configure_and_migrate(self) -> None:
        self._configure()
        for service in self._migrated:
            service.migrate()

    def _populate(self) -> None:
        volume, compute = self.api("admin", "volumev3"), self.api("admin", "compute")
        for backend in self.cinder.backends:
            for name, properties in backend.types.items():
                body = {"name": name, "extra_specs": {"volume_backend_name": backend.name, **properties}}
                made = volume.post("/types", json={"volume_type": body}, raise_exc=True).json()["volume_type"]
                self.volume_types[name] = made["id"]
        made = volume.post("/group_types", json={"group_type": {"name": "consistent"}}, raise_exc=True).json()
        self.group_type_id = made["group_type"]["id"]
        specs = {"group_specs": _CONSISTENT}
        volume.post(f"/group_types/{self.group_type_id}/group_specs", json=specs, raise_exc=True)
        flavor = {"name": "small", "vcpus": 1, "ram": 64, "disk": 0}
        self.flavor_id = compute.post("/flavors", json={"flavor": flavor}, raise_exc=True).json()["flavor"]["id"]
        image = Adapter(self.keystone.session("admin"), service_type="image")
        self.image_id = add_image(image, "pattern")
        self.nova.discover_host()
        until(lambda: bool(compute.get("/os-hypervisors").json().get("hypervisors")), _PATIENCE)
        # Cinder's scheduler hears of the back ends in its own time.
        pools = len(self.cinder.backends)
        until(lambda: len(volume.get("/scheduler-stats/get_pools").json().get("pools", [])) == pools, _PATIENCE)

    def _link_ceph_libraries(self) -> None:
        # They come from Debian only, for Debian's Python, which is of the same version.
        (self.folder / "python").mkdir()
        if self.ceph is not None:
            for found in Path("/usr/lib/python3/dist-packages").glob("r[ab][do]*.so"):
                (self.folder / "python" / found.name).symlink_to(found)


@contextmanager
def openstack_lab(options: Options | None = None) -> Iterator[Lab]:
    """Bring a lab up, and end it with everything it started and wrote, also when this process is killed."""
    options = options or Options()
    if missing := missing_packages(ceph=options.ceph):
        raise RuntimeError(f"these Debian packages are missing: {' '.join(missing)}")
    if os.geteuid() != 0:
        raise RuntimeError("the lab needs root: Cinder handles images as root, RabbitMQ and MariaDB must not be root")
    folder = Path(tempfile.mkdtemp(prefix="stillframe-lab-"))
    # RabbitMQ and MariaDB run under accounts of their own.
    folder.chmod(0o755)
    with guarded(f"{MARK}={folder}", folder, keep=options.keep):
        lab = Lab(folder, options)
        lab.start()
        yield lab
