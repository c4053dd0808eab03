"""Placement: where Nova's scheduler looks for room."""

from __future__ import annotations

from tests.lab.openstack.database import Database
from tests.lab.openstack.keystone import Keystone, token_options
from tests.lab.openstack.services import Place, free_port, ini
from tests.lab.openstack.web import Web

__all__ = ["Placement"]


class Placement(Web):
    """The resources of the one host."""

    def __init__(self, place: Place) -> None:
        self.folder = place.folder / "placement"
        environment = {"OS_PLACEMENT_CONFIG_DIR": str(self.folder)}
        super().__init__(place, "placement", "placement.wsgi.api", free_port(), environment)

    def configure(self, database: Database, keystone: Keystone) -> None:
        self.folder.mkdir()
        (self.folder / "placement.conf").write_text(
            ini(
                {
                    "DEFAULT": {"state_path": str(self.folder)},
                    "api": {"auth_strategy": "keystone"},
                    "placement_database": {"connection": database.url("placement"), "max_pool_size": 5},
                    "keystone_authtoken": token_options(keystone.auth_url, "placement"),
                }
            )
        )

    def migrate(self) -> None:
        self.place.run(self.place.program("placement-manage"), "--config-dir", str(self.folder), "db", "sync")
