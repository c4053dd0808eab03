"""Cinder: the API, the scheduler, and one volume service for each back end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.openstack.database import Database
from tests.lab.openstack.filters import Filter, write_paste
from tests.lab.openstack.keystone import Keystone, service_options, token_options
from tests.lab.openstack.rabbit import Rabbit
from tests.lab.openstack.services import HOST, Option, Place, Service, consumed, free_port, ini
from tests.lab.openstack.web import Web

__all__ = ["VOLUME_HOST", "Backend", "Cinder"]

VOLUME_HOST = "lab"


@dataclass(frozen=True)
class Backend:
    """A section of Cinder's configuration, and the volume types that lead to it, with their further properties."""

    name: str
    options: Mapping[str, Option]
    types: Mapping[str, Mapping[str, str]]


@dataclass
class Cinder:
    """The services of Cinder and their configuration files."""

    place: Place
    rabbit: Rabbit
    backends: Sequence[Backend]
    volumes: dict[str, Service] = field(init=False)

    def __post_init__(self) -> None:
        self.folder = self.place.folder / "cinder"
        self.file = self.folder / "cinder.conf"
        file = ("--config-file", str(self.file))
        arguments = (*file, "--config-file", str(self._only("api")))
        self.api = Web(self.place, "cinder-api", "cinder.wsgi.api", free_port(), arguments=arguments)
        program = [self.place.program("cinder-scheduler"), *file]
        ready = consumed(self.rabbit.transport, f"cinder-scheduler.{VOLUME_HOST}")
        self.scheduler = Service(self.place, "cinder-scheduler", program, ready)
        self.volumes = {backend.name: self._volume(backend.name) for backend in self.backends}

    def configure(self, database: Database, keystone: Keystone, glance: str, extra: Filter | None) -> None:
        self.folder.mkdir()
        (self.folder / "conversion").mkdir()
        self.write_paste(extra)
        venv = self.place.venv

        def login() -> dict[str, Option]:
            return service_options(keystone.auth_url, "cinder")

        def privileged(section: str) -> dict[str, dict[str, str]]:
            # The default goes through sudo, which root has no need of.
            return {section: {"helper_command": f"{self.place.program('privsep-helper')} --config-file {self.file}"}}

        quotas = ("volumes", "snapshots", "gigabytes", "groups", "backups", "backup_gigabytes")
        self.file.write_text(
            ini(
                {
                    "DEFAULT": {
                        "transport_url": self.rabbit.url,
                        "state_path": str(self.folder),
                        "host": VOLUME_HOST,
                        "my_ip": HOST,
                        "api_paste_config": str(self.folder / "api-paste.ini"),
                        "resource_query_filters_file": str(venv / "etc" / "cinder" / "resource_filters.json"),
                        "glance_api_servers": glance,
                        "allowed_direct_url_schemes": "cinder",
                        "image_conversion_dir": str(self.folder / "conversion"),
                        "default_volume_type": "rawfile",
                        "enabled_backends": ",".join(backend.name for backend in self.backends),
                        # Without its manager Ceph says that it has no room.
                        "scheduler_default_filters": "AvailabilityZoneFilter,CapabilitiesFilter",
                        "report_interval": 5,
                        "service_down_time": 20,
                        "backend_stats_polling_interval": 10,
                        "rpc_response_timeout": 60,
                        **{f"quota_{name}": -1 for name in quotas},
                    },
                    "database": {"connection": database.url("cinder"), "max_pool_size": 5},
                    "keystone_authtoken": token_options(keystone.auth_url, "cinder"),
                    "service_user": {"send_service_user_token": True, **login()},
                    "nova": {**login(), "interface": "internal", "token_auth_url": keystone.auth_url},
                    "oslo_concurrency": {"lock_path": str(self.folder)},
                    "coordination": {"backend_url": f"file://{self.folder}/coordination"},
                    "oslo_messaging_rabbit": {"heartbeat_in_pthread": False},
                    **privileged("cinder_sys_admin"),
                    **privileged("privsep_osbrick"),
                    **{
                        backend.name: {"volume_backend_name": backend.name, **backend.options}
                        for backend in self.backends
                    },
                }
            )
        )
        for backend in self.backends:
            self._only(backend.name).write_text(ini({"DEFAULT": {"enabled_backends": backend.name}}))

    def write_paste(self, extra: Filter | None) -> None:
        """Write the API's api-paste.ini; a running API takes it at its next start."""
        write_paste(self.place.venv / "etc" / "cinder" / "api-paste.ini", self.folder / "api-paste.ini", extra)

    def write_extensions(self, extensions: Sequence[str]) -> None:
        """Name the API's extensions (`package.module.factory`) beside the stock ones; taken at its next start."""
        options = {"osapi_volume_extension": ["cinder.api.contrib.standard_extensions", *extensions]}
        self._only("api").write_text(ini({"DEFAULT": options}))

    def migrate(self) -> None:
        self.place.run(self.place.program("cinder-manage"), "--config-file", str(self.file), "db", "sync")

    @property
    def services(self) -> list[Service]:
        return [*self.volumes.values(), self.scheduler, self.api]

    def _only(self, part: str) -> Path:
        return self.folder / f"{part}.conf"

    def _volume(self, backend: str) -> Service:
        files = ("--config-file", str(self.file), "--config-file", str(self._only(backend)))
        ready = consumed(self.rabbit.transport, f"cinder-volume.{VOLUME_HOST}@{backend}")
        return Service(self.place, f"cinder-volume-{backend}", [self.place.program("cinder-volume"), *files], ready)
