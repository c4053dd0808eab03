"""A guest in the lab's cloud, and what can be seen of it from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tests.lab.openstack.lab import Lab
from tests.lab.openstack.tenant import Tenant, checked

MIDDLE: Final = 1 << 29


@dataclass
class Guest:
    """A server with a root and two data volumes, and what its guest does with them."""

    lab: Lab
    tenant: Tenant
    id: str
    volumes: list[str]

    def write(self, text: str) -> None:
        for number, volume in enumerate(self.volumes):
            self.lab.write_volume(volume, MIDDLE, f"{text} on {number}".encode().ljust(4096, b"."))

    def read(self) -> list[str]:
        found = [self.lab.read_volume(volume, MIDDLE, 4096) for volume in self.volumes]
        return [data.rstrip(b".").decode().rpartition(" on ")[0] for data in found]

    def server(self) -> dict[str, Any]:
        found: dict[str, Any] = checked(self.lab.api("admin", "compute").get(f"/servers/{self.id}"))["server"]
        return found

    def attachments(self) -> Any:
        return checked(self.tenant.compute.get(f"/servers/{self.id}/os-volume_attachments"))["volumeAttachments"]

    def is_whole(self) -> bool:
        """Up, unlocked, and with all its volumes in use."""
        states = {checked(self.tenant.volume.get(f"/volumes/{one}"))["volume"]["status"] for one in self.volumes}
        server = self.server()
        return states == {"in-use"} and server["status"] == "ACTIVE" and not server["locked"]
