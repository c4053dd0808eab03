"""Instance snapshots of servers with real volumes, by users with real tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab.openstack.fixtures import needs_lab
from tests.lab.openstack.lab import Lab
from tests.lab.openstack.tenant import Tenant, checked
from tests.openstack.service import User, holdings

pytestmark = [pytest.mark.openstack, needs_lab]

MIDDLE = 1 << 29


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


@pytest.fixture
def guest(lab: Lab, tenant: Tenant) -> Guest:
    volumes = [tenant.create_volume() for _ in range(3)]
    return Guest(lab, tenant, tenant.create_server(volumes), volumes)


def test_a_server_goes_back_to_any_of_its_snapshots_and_keeps_its_volumes(
    lab: Lab, tenant: Tenant, guest: Guest, user: User
) -> None:
    before, attached = holdings(lab, tenant), guest.attachments()
    taken = {}
    for text in ("A", "B", "C"):
        guest.write(text)
        shown = user.create(guest.id)
        assert (shown["status"], set(shown["snapshots"])) == ("available", set(guest.volumes)), shown
        taken[text] = shown["id"]
    guest.write("now")
    for text in ("A", "C", "B"):
        shown = user.restore(guest.id, taken[text])
        assert (shown["status"], shown["fault"]) == ("available", None)
        assert guest.read() == [text] * 3
        assert guest.is_whole()
        assert guest.attachments() == attached
    for text in ("B", "A", "C"):
        user.delete(taken[text])
    assert holdings(lab, tenant) == before


def test_a_restore_that_fails_for_one_volume_is_retried(lab: Lab, tenant: Tenant, guest: Guest, user: User) -> None:
    before = holdings(lab, tenant)
    guest.write("then")
    snapshot_id = user.create(guest.id)["id"]
    guest.write("now")
    lab.order_fault("revert_to_snapshot", target=guest.volumes[1], times=1)
    shown = user.restore(guest.id, snapshot_id)
    assert shown["status"] == "restore-error"
    assert set(shown["failed_snapshots"]) == {guest.volumes[1]}
    assert set(shown["temp_snapshots"]) == set(guest.volumes)
    assert guest.read() == ["then", "now", "then"]
    # Nobody can start what is half one thing and half another.
    assert tenant.act(guest.id, "os-start").status_code == 409
    shown = user.restore(guest.id, snapshot_id, retry=True)
    assert (shown["status"], shown["failed_snapshots"], shown["temp_snapshots"]) == ("available", None, None)
    assert guest.read() == ["then"] * 3
    assert guest.is_whole()
    user.delete(snapshot_id)
    assert holdings(lab, tenant) == before


def test_a_restore_that_fails_is_rolled_back(lab: Lab, tenant: Tenant, guest: Guest, user: User) -> None:
    before = holdings(lab, tenant)
    guest.write("then")
    snapshot_id = user.create(guest.id)["id"]
    guest.write("now")
    lab.order_fault("revert_to_snapshot", target=guest.volumes[2], times=1)
    assert user.restore(guest.id, snapshot_id)["status"] == "restore-error"
    shown = user.restore(guest.id, snapshot_id, rollback=True)
    assert (shown["status"], shown["failed_snapshots"], shown["temp_snapshots"]) == ("available", None, None)
    assert guest.read() == ["now"] * 3
    assert guest.is_whole()
    user.delete(snapshot_id)
    assert holdings(lab, tenant) == before
