"""Nova: one cell with one compute host, whose hypervisor is fake; everything above that is the real thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.lab.openstack.database import Database
from tests.lab.openstack.filters import Filter, write_paste
from tests.lab.openstack.keystone import REGION, Keystone, service_options, token_options
from tests.lab.openstack.rabbit import Rabbit
from tests.lab.openstack.services import HOST, Option, Place, Service, consumed, free_port, ini
from tests.lab.openstack.web import Web

__all__ = ["COMPUTE_HOST", "Nova"]

COMPUTE_HOST = "lab-compute"


@dataclass
class Nova:
    """The services of Nova and their configuration files."""

    place: Place
    rabbit: Rabbit

    def __post_init__(self) -> None:
        self.folder = self.place.folder / "nova"
        self.file = self.folder / "nova.conf"
        # Apart, for the compute service must not know of databases.
        self.database_file = self.folder / "database.conf"
        environment = {
            "OS_NOVA_CONFIG_DIR": str(self.folder),
            "OS_NOVA_CONFIG_FILES": "api-paste.ini;nova.conf;database.conf",
            # uwsgi brings threads of its own.
            "OS_NOVA_DISABLE_EVENTLET_PATCHING": "yes",
        }
        self.api = Web(self.place, "nova-api", "nova.wsgi.osapi_compute", free_port(), environment)
        self.conductor = self._worker("nova-conductor", "conductor")
        self.scheduler = self._worker("nova-scheduler", "scheduler")
        # Not by its path: its folder has modules named like Nova's packages.
        hypervisor = [self.place.program("python"), "-P", "-m", "tests.lab.openstack.hypervisor"]
        command = [*hypervisor, "--config-file", str(self.file)]
        self.compute = Service(self.place, "nova-compute", command, self._consumed(f"compute.{COMPUTE_HOST}"))

    def configure(self, database: Database, keystone: Keystone, network: str, extra: Filter | None) -> None:
        self.folder.mkdir()
        (self.folder / "instances").mkdir()
        self.write_paste(extra)

        databases = {"api_database": "nova_api", "database": "nova"}
        self.database_file.write_text(
            ini(
                {section: {"connection": database.url(name), "max_pool_size": 5} for section, name in databases.items()}
            )
        )

        def login(user: str = "nova") -> dict[str, Option]:
            return service_options(keystone.auth_url, user)

        self.file.write_text(
            ini(
                {
                    "DEFAULT": {
                        "transport_url": self.rabbit.url,
                        "state_path": str(self.folder),
                        "host": COMPUTE_HOST,
                        "my_ip": HOST,
                        "compute_driver": "lab.PersistentDriver",
                        "block_device_allocate_retries_interval": 1,
                        "heal_instance_info_cache_interval": -1,
                        "update_resources_interval": 10,
                        "rpc_response_timeout": 60,
                    },
                    "wsgi": {"api_paste_config": str(self.folder / "api-paste.ini")},
                    "keystone_authtoken": token_options(keystone.auth_url, "nova"),
                    "service_user": {"send_service_user_token": True, **login()},
                    "cinder": {**login(), "os_region_name": REGION},
                    "glance": login(),
                    "placement": login(),
                    "neutron": {**login(), "endpoint_override": network, "http_retries": 0},
                    "keystone": login(),
                    "quota": dict.fromkeys(("instances", "cores", "ram", "key_pairs", "server_groups"), -1),
                    "conductor": {"workers": 1},
                    "scheduler": {"workers": 1},
                    "vnc": {"enabled": False},
                    "oslo_concurrency": {"lock_path": str(self.folder)},
                    "oslo_messaging_rabbit": {"heartbeat_in_pthread": False},
                }
            )
        )

    def write_paste(self, extra: Filter | None) -> None:
        """Write the API's api-paste.ini; a running API takes it at its next start."""
        write_paste(self.place.venv / "etc" / "nova" / "api-paste.ini", self.folder / "api-paste.ini", extra)

    def migrate(self) -> None:
        # Templates, which each process fills in from its own configuration: ports differ from lab to lab.
        server = "{scheme}://{username}:{password}@{hostname}:{port}"
        self._manage("api_db", "sync")
        self._manage("cell_v2", "map_cell0", "--database_connection", f"{server}/nova_cell0?{{query}}")
        cell = ("--database_connection", f"{server}/{{path}}?{{query}}", "--transport-url", f"{server}//")
        self._manage("cell_v2", "create_cell", "--name", "cell1", *cell)
        self._manage("db", "sync")

    def discover_host(self) -> None:
        """Map the host into its cell; the compute service must have been ready once."""
        self._manage("cell_v2", "discover_hosts")

    @property
    def services(self) -> list[Service]:
        return [self.conductor, self.scheduler, self.compute, self.api]

    def _manage(self, *arguments: str) -> None:
        self.place.run(self.place.program("nova-manage"), *self._files(), *arguments)

    def _files(self) -> list[str]:
        return ["--config-file", str(self.file), "--config-file", str(self.database_file)]

    def _worker(self, name: str, queue: str) -> Service:
        return Service(self.place, name, [self.place.program(name), *self._files()], self._consumed(queue))

    def _consumed(self, queue: str) -> Callable[[], bool]:
        return consumed(self.rabbit.transport, queue)
