"""A guest in the lab's cloud, and what can be seen of it from outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.lab.openstack.lab import Lab
from tests.lab.openstack.tenant import Tenant, checked

MIDDLE: Final = 1 << 29

#: For stories that are to be true of every back end that the lab has.
on_each_back_end: Final = pytest.mark.parametrize("kind", ["rawfile", "rbd"])


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

    def write_itself(self, number: int, text: str) -> bool:
        """Write to one volume as the guest's own programs would: not while the guest is paused; whether it did."""
        data = f"{text} on {number}".encode().ljust(4096, b".")
        return self.lab.write_volume(self.volumes[number], MIDDLE, data, guest=self.id)

    def is_paused(self) -> bool:
        """As its hypervisor sees it."""
        return self.lab.is_paused(self.id)

    def read(self) -> list[str]:
        found = [self.lab.read_volume(volume, MIDDLE, 4096) for volume in self.volumes]
        return [data.rstrip(b".").decode().rpartition(" on ")[0] for data in found]

    @contextmanager
    def failing_once(self, number: int, snapshot: Mapping[str, Any]) -> Iterator[None]:
        """The back end cannot put one volume back to an instance snapshot while the block lasts, or once."""
        volume = self.volumes[number]
        if self.lab.ceph is None or (self.lab.volume_folder / f"volume-{volume}").exists():
            self.lab.order_fault("revert_to_snapshot", target=volume, times=1)
            yield
            return
        names = f"snapshot-{snapshot['snapshots'][volume]}", "elsewhere"
        self.lab.ceph.rename_snapshot(f"volume-{volume}", *names)
        try:
            yield
        finally:
            self.lab.ceph.rename_snapshot(f"volume-{volume}", *reversed(names))

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
