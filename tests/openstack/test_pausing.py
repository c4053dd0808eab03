"""A running server is held still by Nova's pause while its volumes are cut, and never stays so."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stillframe.testing.compute import TestQuiesce
from tests.lab.openstack.fixtures import needs_lab
from tests.lab.openstack.lab import Lab
from tests.lab.openstack.services import until
from tests.lab.openstack.tenant import Tenant, checked
from tests.openstack.guest import Guest
from tests.openstack.service import Stillframe, User, holdings, own_user, serving
from tests.openstack.world import CloudWorld, connected

__all__ = ["TestQuiesce"]

pytestmark = [pytest.mark.openstack, needs_lab]

# Longer than any cut in the lab that is not held up, shorter than what holds it up.
LIMIT, SLOW = 20.0, 4.0


@pytest.fixture
def world(lab: Lab, tmp_path: Path) -> Iterator[CloudWorld]:
    made = CloudWorld(lab, connected(lab, tmp_path), pause_seconds=LIMIT)
    yield made
    made.close()


@pytest.fixture(scope="module")
def pausing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stillframe]:
    """A service that pauses what it cuts."""
    cloud = {"quiesce": "pause", "pause_seconds": LIMIT}
    with serving(lab, tmp_path_factory.mktemp("pausing"), user="stillframe-pausing", cloud=cloud) as running:
        yield running


@pytest.fixture
def user(lab: Lab, pausing: Stillframe) -> User:
    return own_user(lab, pausing, "alpha-member")


def begin(user: User, guest: Guest) -> str:
    made = checked(user.act(guest.id, {"vm-snapshot": {"name": "story"}}), 200)
    return str(made["instance_snapshot"]["id"])


def watchdog_of(service: Stillframe) -> int:
    """The child of the service that is told what is paused."""
    children = Path(f"/proc/{service.process_id}/task").glob("*/children")
    found = [int(number) for one in children for number in one.read_text().split()]
    (watchdog,) = [one for one in found if b"openstack/watchdog.py" in Path(f"/proc/{one}/cmdline").read_bytes()]
    return watchdog


@contextmanager
def counting(guest: Guest) -> Iterator[None]:
    """The guest writes ever larger numbers, each to its first volume, then to the next ones."""
    end = threading.Event()

    def count() -> None:
        number = 0
        while not end.wait(0.01):
            number += 1
            for volume in range(len(guest.volumes)):
                while not guest.write_itself(volume, str(number)) and not end.wait(0.01):
                    pass

    writer = threading.Thread(target=count)
    writer.start()
    try:
        yield
    finally:
        end.set()
        writer.join()


def test_volumes_that_are_cut_one_after_another_fit_together(
    lab: Lab, tenant: Tenant, guest: Guest, user: User
) -> None:
    before = holdings(lab, tenant)
    # The second volume is cut long after the others, and a guest that ran would have written to it meanwhile.
    lab.order_fault("create_snapshot", target=guest.volumes[1], action="hang", seconds=SLOW / 2)
    with counting(guest):
        until(lambda: guest.read()[-1] >= "1", 30)
        shown = user.create(guest.id)
    assert (shown["status"], shown["consistency"]["level"]) == ("available", "crash"), shown
    assert guest.is_whole()
    assert user.restore(guest.id, shown["id"])["status"] == "available"
    first, second, third = (int(text) for text in guest.read())
    assert first >= second >= third >= first - 1
    user.delete(shown["id"])
    assert holdings(lab, tenant) == before


def test_a_guest_runs_again_within_seconds_when_the_service_dies_in_a_cut(
    lab: Lab, guest: Guest, user: User, pausing: Stillframe
) -> None:
    lab.order_fault("create_snapshot", target=guest.volumes[1], action="hang", seconds=SLOW)
    snapshot_id = begin(user, guest)
    until(guest.is_paused, 30)
    pausing.kill()
    # Long before its time is over.
    until(lambda: not guest.is_paused(), LIMIT * 0.8)
    until(guest.is_whole, 60)
    pausing.start()
    shown = user.settled(snapshot_id)
    # The cut was made anew: what was cut while the guest ran again is worth nothing.
    assert (shown["status"], shown["consistency"]["level"]) == ("available", "crash"), shown
    assert guest.is_whole()
    user.delete(snapshot_id)


def test_a_guest_whose_watchdog_died_too_runs_again_when_the_service_is_back(
    lab: Lab, guest: Guest, user: User, pausing: Stillframe
) -> None:
    lab.order_fault("create_snapshot", target=guest.volumes[1], action="hang", seconds=SLOW)
    snapshot_id = begin(user, guest)
    until(guest.is_paused, 30)
    os.kill(watchdog_of(pausing), signal.SIGKILL)
    pausing.kill()
    assert guest.is_paused()
    pausing.start()
    until(lambda: not guest.is_paused(), 30)
    shown = user.settled(snapshot_id)
    assert shown["status"] == "available", shown.get("fault")
    assert guest.is_whole()
    user.delete(snapshot_id)


def test_a_cut_that_takes_too_long_lets_the_guest_run_and_fails(
    lab: Lab, tenant: Tenant, guest: Guest, user: User
) -> None:
    before = holdings(lab, tenant)
    lab.order_fault("create_snapshot", target=guest.volumes[1], action="hang", seconds=600)
    snapshot_id = begin(user, guest)
    until(guest.is_paused, 30)
    until(lambda: not guest.is_paused(), 3 * LIMIT)
    assert user.show(snapshot_id)["status"] == "creating"
    lab.clear_faults()
    shown = user.settled(snapshot_id)
    assert (shown["status"], "pause_seconds" in shown["fault"]["message"]) == ("error", True), shown
    assert guest.is_whole()
    user.delete(snapshot_id)
    assert holdings(lab, tenant) == before


@pytest.mark.parametrize("reason", ["the hypervisor cannot", "its owner has locked it"])
def test_a_guest_that_is_not_paused_is_cut_as_it_is_and_that_is_said(
    lab: Lab, tenant: Tenant, guest: Guest, user: User, reason: str
) -> None:
    if "hypervisor" in reason:
        lab.let_guests_pause(possible=False)
    else:
        checked(tenant.act(guest.id, "lock"), 202)
    try:
        shown = user.create(guest.id)
    finally:
        lab.let_guests_pause(possible=True)
    assert (shown["status"], shown["consistency"]["level"]) == ("available", "none"), shown
    assert guest.server()["status"] == "ACTIVE"
    user.delete(shown["id"])


def test_a_guest_that_its_owner_has_paused_is_still_and_stays_so(tenant: Tenant, guest: Guest, user: User) -> None:
    checked(tenant.act(guest.id, "pause"), 202)
    tenant.wait_server(guest.id, "PAUSED")
    shown: dict[str, Any] = user.create(guest.id)
    assert (shown["status"], shown["consistency"]["level"]) == ("available", "crash"), shown
    assert guest.server()["status"] == "PAUSED"
    user.delete(shown["id"])
