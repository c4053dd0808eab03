"""A host or a service of the cloud is dead, or away: the documented end, nothing power-cycled, nothing left."""

from __future__ import annotations

import pytest

from tests.lab.openstack.fixtures import needs_lab
from tests.lab.openstack.lab import Lab
from tests.lab.openstack.services import until
from tests.lab.openstack.tenant import Tenant, checked
from tests.openstack.guest import Guest
from tests.openstack.service import PATIENCE, User, holdings

pytestmark = [pytest.mark.openstack, needs_lab]


def history(guest: Guest) -> list[str]:
    """What Nova was asked to do with the server, and whoever has done it."""
    found = checked(guest.lab.api("admin", "compute").get(f"/servers/{guest.id}/os-instance-actions"))
    return [one["action"] for one in found["instanceActions"]]


def test_a_dead_compute_host_is_asked_for_nothing(lab: Lab, tenant: Tenant, guest: Guest, user: User) -> None:
    before = holdings(lab, tenant)
    guest.write("then")
    kept = user.create(guest.id)["id"]
    guest.write("now")
    asked = history(guest)
    lab.nova.compute.kill()
    try:
        # A snapshot needs no compute host.
        made = user.create(guest.id)
        assert (made["status"], made["fault"]) == ("available", None)
        body = {"vm-restore": {"instance_snapshot_id": kept, "force": True}}
        refused = user.act(guest.id, body)
        assert (refused.status_code, "start nova-compute there" in refused.text) == (409, True), refused.text
        assert user.show(kept)["status"] == "available"
        assert not guest.server()["locked"]
    finally:
        lab.nova.compute.start()
    assert history(guest) == asked
    assert (guest.server()["status"], guest.read()) == ("ACTIVE", ["now"] * 3)
    until(lambda: user.restore(guest.id, kept)["fault"] is None, PATIENCE)
    assert guest.read() == ["then"] * 3
    assert guest.is_whole()
    for one in (made["id"], kept):
        user.delete(one)
    assert holdings(lab, tenant) == before


def test_a_server_that_is_shelved_is_refused_with_what_to_do(tenant: Tenant, guest: Guest, user: User) -> None:
    kept = user.create(guest.id)["id"]
    checked(tenant.act(guest.id, "shelve"), 202)
    tenant.wait_server(guest.id, "SHELVED_OFFLOADED")
    for body in ({"vm-restore": {"instance_snapshot_id": kept, "force": True}}, {"vm-snapshot": {"name": "no"}}):
        refused = user.act(guest.id, body)
        assert (refused.status_code, "openstack server unshelve" in refused.text) == (409, True), refused.text
    checked(tenant.act(guest.id, "unshelve"), 202)
    tenant.wait_server(guest.id, "ACTIVE")
    assert user.restore(guest.id, kept)["fault"] is None
    user.delete(kept)
