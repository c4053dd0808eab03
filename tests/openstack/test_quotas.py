"""Copies for which a project's quota has no room are refused before anything is touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.openstack.fixtures import needs_lab
from tests.lab.openstack.lab import Lab
from tests.lab.openstack.tenant import Tenant, checked
from tests.openstack.guest import Guest
from tests.openstack.service import User, holdings

pytestmark = [pytest.mark.openstack, needs_lab]


@contextmanager
def room_for(lab: Lab, project: str, snapshots: int) -> Iterator[None]:
    """The project's quota has room for so many more snapshots while the block lasts."""
    api, path = lab.api("admin", "volumev3"), f"/os-quota-sets/{lab.projects[project]}"
    usual = checked(api.get(f"{path}?usage=true"))["quota_set"]["snapshots"]
    limits = usual["in_use"] + usual["reserved"] + snapshots, usual["limit"]
    try:
        checked(api.put(path, json={"quota_set": {"snapshots": limits[0]}}))
        yield
    finally:
        checked(api.put(path, json={"quota_set": {"snapshots": limits[1]}}))


def test_a_snapshot_that_the_projects_quota_has_no_room_for_is_refused(
    lab: Lab, tenant: Tenant, guest: Guest, user: User
) -> None:
    before = holdings(lab, tenant)
    with room_for(lab, "alpha", len(guest.volumes) - 1):
        refused = user.act(guest.id, {"vm-snapshot": {"name": "no"}})
        assert (refused.status_code, "has 2 left" in refused.text) == (413, True), refused.text
        assert holdings(lab, tenant)["snapshots"] == before["snapshots"]
    with room_for(lab, "alpha", len(guest.volumes)):
        shown = user.create(guest.id)
        assert shown["status"] == "available", shown
    user.delete(shown["id"])


def test_a_restore_without_room_for_safety_copies_is_undone_before_any_is_made(
    lab: Lab, tenant: Tenant, guest: Guest, user: User
) -> None:
    guest.write("then")
    snapshot_id = user.create(guest.id)["id"]
    guest.write("now")
    before = holdings(lab, tenant)
    with room_for(lab, "service", len(guest.volumes) - 1):
        body = {"vm-restore": {"instance_snapshot_id": snapshot_id, "force": True}}
        checked(user.act(guest.id, body), 202)
        shown = user.settled(snapshot_id)
        assert (shown["status"], shown["fault"]["code"]) == ("available", "too-large"), shown
    assert (guest.read(), guest.is_whole()) == (["now"] * 3, True)
    assert holdings(lab, tenant) == before
    assert user.restore(guest.id, snapshot_id)["status"] == "available"
    assert guest.read() == ["then"] * 3
    user.delete(snapshot_id)
