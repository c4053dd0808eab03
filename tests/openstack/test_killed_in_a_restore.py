"""The service is killed at chosen points of a restore; what it does when it is back ends truly and leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.lab.openstack.fixtures import needs_lab
from tests.lab.openstack.lab import Lab
from tests.lab.openstack.tenant import Tenant, checked
from tests.openstack.crossing import Crossing, crossing
from tests.openstack.guest import Guest
from tests.openstack.service import Stillframe, holdings, own_user, serving

pytestmark = [pytest.mark.openstack, needs_lab]

# In their order in a restore; where there is one for each volume, the second.
BEFORE = (("os-stop", 1), ("POST snapshots", 2), ("revert", 2), ("os-reset_status in-use", 2), ("unlock", 1))
AFTER = (("lock", 1), ("POST snapshots", 2), ("os-reset_status available", 2), ("revert", 2), ("unlock", 1))


@pytest.fixture(scope="module")
def crossed(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stillframe, Crossing]]:
    """A service of its own, all of whose requests to the cloud go over a crossing."""
    with ExitStack() as stack:
        way = stack.enter_context(crossing())
        folder = tmp_path_factory.mktemp("crossed")
        yield stack.enter_context(serving(lab, folder, variables={"http_proxy": way.url, "no_proxy": ""})), way


@pytest.mark.parametrize(("side", "points"), [("before", BEFORE), ("after", AFTER)], ids=["before", "after"])
def test_a_service_killed_in_the_middle_of_a_restore_goes_through_with_it(
    lab: Lab,
    tenant: Tenant,
    guest: Guest,
    crossed: tuple[Stillframe, Crossing],
    side: str,
    points: tuple[tuple[str, int], ...],
) -> None:
    service, way = crossed
    user, before, attached = own_user(lab, service, "alpha-member"), holdings(lab, tenant), guest.attachments()
    guest.write("then")
    snapshot_id = user.create(guest.id)["id"]
    restore = {"vm-restore": {"instance_snapshot_id": snapshot_id, "force": True}}
    for request, number in points:
        guest.write(f"until {request}")
        way.order(request, number, side, service.kill)
        checked(user.act(guest.id, restore), 202)
        assert way.struck(), (request, way.passed)
        service.start()
        shown = user.settled(snapshot_id)
        assert (shown["status"], shown["fault"], shown["temp_snapshots"]) == ("available", None, None), request
        assert guest.read() == ["then"] * 3, request
        assert guest.is_whole(), request
        assert guest.attachments() == attached, request
    user.delete(snapshot_id)
    assert holdings(lab, tenant) == before
