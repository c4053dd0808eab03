"""Glance: images in files."""

from __future__ import annotations

import shutil

from keystoneauth1.adapter import Adapter

from tests.lab.openstack.database import Database
from tests.lab.openstack.keystone import Keystone, token_options
from tests.lab.openstack.services import Place, free_port, ini
from tests.lab.openstack.web import Web

__all__ = ["IMAGE_BYTES", "Glance", "add_image"]

# The content of the lab's one image: no operating system, but a pattern that can be found again on a volume.
IMAGE_BYTES = b"".join(number.to_bytes(8, "big") for number in range(1 << 17))


class Glance(Web):
    """The image service."""

    def __init__(self, place: Place) -> None:
        self.folder = place.folder / "glance"
        environment = {"OS_GLANCE_CONFIG_DIR": str(self.folder)}
        super().__init__(place, "glance", "glance.wsgi.api", free_port(), environment)

    def configure(self, database: Database, keystone: Keystone) -> None:
        self.folder.mkdir()
        for name in ("images", "staging", "tasks"):
            (self.folder / name).mkdir()
        shutil.copy(self.place.venv / "etc" / "glance" / "glance-api-paste.ini", self.folder)
        (self.folder / "glance-api.conf").write_text(
            ini(
                {
                    "DEFAULT": {
                        "enabled_backends": "files:file",
                        "worker_self_reference_url": self.url,
                        "show_multiple_locations": True,
                        "show_image_direct_url": True,
                    },
                    "database": {"connection": database.url("glance"), "max_pool_size": 5},
                    "glance_store": {"default_backend": "files"},
                    "files": {"filesystem_store_datadir": str(self.folder / "images")},
                    "os_glance_staging_store": {"filesystem_store_datadir": str(self.folder / "staging")},
                    "os_glance_tasks_store": {"filesystem_store_datadir": str(self.folder / "tasks")},
                    "keystone_authtoken": token_options(keystone.auth_url, "glance"),
                    "paste_deploy": {"flavor": "keystone"},
                    "oslo_concurrency": {"lock_path": str(self.folder)},
                }
            )
        )

    def migrate(self) -> None:
        manage = [self.place.program("glance-manage"), "--config-file", str(self.folder / "glance-api.conf")]
        self.place.run(*manage, "db_sync")


def add_image(api: Adapter, name: str) -> str:
    """Upload the lab's public image and return its id; `api` is an administrator's of the image service."""
    body = {"name": name, "disk_format": "raw", "container_format": "bare", "visibility": "public"}
    image_id = str(api.post("/v2/images", json=body).json()["id"])
    headers = {"Content-Type": "application/octet-stream"}
    api.put(f"/v2/images/{image_id}/file", data=IMAGE_BYTES, headers=headers)
    return image_id
