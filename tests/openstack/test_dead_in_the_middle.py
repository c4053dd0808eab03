"""A part of the cloud dies in the middle of a snapshot or a restore: the documented end, and nothing left afterwards.

No server is switched but by the restore itself. Times are a sixth of the defaults, and so is the time that a part is
away: 20 seconds stand for two minutes. A pause may last for longer than by default, for a host is back within it then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest
import requests

from tests.lab.openstack.fixtures import needs_lab
from tests.lab.openstack.lab import Lab
from tests.lab.openstack.services import until
from tests.lab.openstack.tenant import Tenant, checked
from tests.openstack.crossing import Crossing, crossing
from tests.openstack.guest import Guest
from tests.openstack.service import PATIENCE, Stillframe, User, holdings, own_user, serving

pytestmark = [pytest.mark.openstack, needs_lab]

AWAY: Final = 20.0
CLOUD: Final = {
    "timeout": 10,
    "snapshot_timeout": 150,
    "revert_timeout": 2400,
    "late_requests": 10,
    "quiesce": "pause",
    "pause_seconds": 90,
}
SIXTH: Final = {
    "drivers": {"first_wait": 0.1, "longest_wait": 5},
    "engine": {"janitor_interval": 5, "janitor_grace": 5},
}


@pytest.fixture(scope="module")
def crossed(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stillframe, Crossing]]:
    """A service of its own, all of whose requests to the cloud go over a crossing."""
    with ExitStack() as stack:
        way = stack.enter_context(crossing())
        folder = tmp_path_factory.mktemp("crossed")
        variables = {"http_proxy": way.url, "no_proxy": ""}
        options: dict[str, Any] = {"user": "stillframe-pausing", "cloud": CLOUD, "more": SIXTH, "variables": variables}
        yield stack.enter_context(serving(lab, folder, **options)), way


class Story:
    """What happens to one guest, and what is there before and after."""

    def __init__(self, lab: Lab, tenant: Tenant, guest: Guest, user: User, way: Crossing) -> None:
        self.lab, self.guest, self.user, self.way = lab, guest, user, way
        self._holdings: Callable[[], Any] = lambda: holdings(lab, tenant)
        self._before = self._holdings()
        self._attached = guest.attachments()
        self._asked = self.asked()

    def asked(self) -> list[str]:
        """What Nova was asked to do with the server, the latest last."""
        found = checked(self.lab.api("admin", "compute").get(f"/servers/{self.guest.id}/os-instance-actions"))
        return [one["action"] for one in reversed(found["instanceActions"])]

    def since(self) -> list[str]:
        """The same since this was called last."""
        before, self._asked = self._asked, self.asked()
        return self._asked[len(before) :]

    def begin(self, kept: str | None = None) -> str:
        if kept is None:
            made = checked(self.user.act(self.guest.id, {"vm-snapshot": {"name": "story"}}), 200)
            return str(made["instance_snapshot"]["id"])
        checked(self.user.act(self.guest.id, {"vm-restore": {"instance_snapshot_id": kept, "force": True}}), 202)
        return kept

    def cut(self) -> str:
        """A snapshot that there is to go back to, and the guest has gone on since."""
        self.guest.write("then")
        kept = str(self.user.create(self.guest.id)["id"])
        self.guest.write("now")
        self.since()
        return kept

    def away(self, request: str, number: int) -> None:
        """Cinder's API hears of nothing from this request on, and of everything when it is back."""
        api = self.lab.cinder.api

        def freeze() -> None:
            api.freeze()
            threading.Timer(AWAY, api.thaw).start()

        self.way.order(request, number, "at", freeze)

    def snapshots(self) -> set[str]:
        """All that there are in Cinder."""
        return set(self._holdings()["snapshots"])

    def passes(self, request: str) -> None:
        """Wait until the service has asked for this."""
        until(lambda: request in self.way.passed, PATIENCE)

    def retried(self, kept: str) -> requests.Response:
        return self.user.act(
            self.guest.id, {"vm-restore": {"instance_snapshot_id": kept, "retry": True, "force": True}}
        )

    def host_answers(self) -> None:
        api = self.lab.api("admin", "compute")
        until(lambda: api.get(f"/servers/{self.guest.id}/diagnostics").status_code in (200, 409), PATIENCE)

    def holds_nothing(self) -> None:
        """As if there had been no story, soon, by itself."""
        until(lambda: self._holdings() == self._before, PATIENCE)
        until(lambda: self.guest.is_whole() and not self.guest.is_paused(), PATIENCE)
        assert self.guest.attachments() == self._attached


@pytest.fixture
def story(lab: Lab, tenant: Tenant, guest: Guest, crossed: tuple[Stillframe, Crossing]) -> Iterator[Story]:
    service, way = crossed
    yield Story(lab, tenant, guest, own_user(lab, service, "alpha-member"), way)
    # Where it failed in the middle.
    lab.cinder.api.thaw()
    for dead in (lab.nova.compute, lab.cinder.volumes["rawfile"]):
        if not dead.running:
            dead.start()


def test_a_compute_host_dies_in_a_snapshot(lab: Lab, story: Story) -> None:
    # The guest is paused, and what would let it run is queued until its host is back.
    story.way.order("POST snapshots", 1, "at", lab.nova.compute.kill)
    made = story.begin()
    story.passes("unpause")
    assert story.guest.is_paused()
    lab.nova.compute.start()
    shown = story.user.settled(made)
    assert (shown["status"], shown["fault"], shown["consistency"]["level"]) == ("available", None, "crash")
    assert story.since() == ["pause", "unpause"]
    story.user.delete(made)
    story.holds_nothing()


def test_a_compute_host_dies_before_it_has_paused(lab: Lab, story: Story) -> None:
    story.way.order("pause", 1, "at", lab.nova.compute.kill)
    made = story.begin()
    assert story.way.struck()
    # Nova-compute forgets at its start that the server was being paused, and then comes to it in its queue.
    lab.nova.compute.start()
    shown = story.user.settled(made)
    # Where it does not come to the pause in time, nothing of the snapshot is kept.
    assert (shown["status"] == "available") == (shown["fault"] is None), shown
    until(lambda: not story.guest.is_paused() and not story.user.show(made)["guest_may_be_held"], PATIENCE)
    assert set(story.since()) <= {"pause", "unpause"}
    story.user.delete(made)
    story.holds_nothing()


def test_a_compute_host_dies_in_a_restore(lab: Lab, story: Story) -> None:
    guest, kept = story.guest, story.cut()
    story.way.order("os-stop", 1, "before", lab.nova.compute.kill)
    story.begin(kept)
    shown = story.user.settled(kept)
    assert (shown["status"], shown["fault"]["code"]) == ("available", "conflict")
    assert "start nova-compute there" in shown["fault"]["message"]
    lab.nova.compute.start()
    story.host_answers()
    # Nothing was queued.
    assert (story.since(), guest.read(), guest.is_whole()) == (["lock", "unlock"], ["now"] * 3, True)
    story.way.order("os-stop", 1, "at", lab.nova.compute.kill)
    story.begin(kept)
    assert story.way.struck()
    until(lambda: guest.server()["OS-EXT-STS:task_state"] == "powering-off", PATIENCE)
    assert guest.server()["locked"]
    # The stop is queued and cannot be taken back: it is waited for.
    lab.nova.compute.start()
    shown = story.user.settled(kept)
    assert (shown["status"], shown["fault"], guest.read()) == ("available", None, ["then"] * 3)
    assert story.since() == ["lock", "stop", "unlock", "start"]
    story.user.delete(kept)
    story.holds_nothing()


def test_a_volume_service_dies_in_a_snapshot(lab: Lab, story: Story) -> None:
    volume = lab.cinder.volumes["rawfile"]
    story.way.order("POST snapshots", 2, "at", volume.kill)
    shown = story.user.settled(made := story.begin())
    assert (shown["status"], shown["snapshots"]) == ("error", None)
    assert "is down; have the operator start it" in shown["fault"]["message"]
    assert story.since() == ["pause", "unpause"]
    assert not story.guest.is_paused()
    # What was queued is cut late, and goes by itself.
    volume.start()
    story.holds_nothing()
    story.user.delete(made)


def test_a_volume_service_dies_in_a_restore(lab: Lab, story: Story) -> None:
    volume, guest, kept = lab.cinder.volumes["rawfile"], story.guest, story.cut()
    story.way.order("revert", 2, "at", volume.kill)
    story.begin(kept)
    shown = story.user.settled(kept)
    assert (shown["status"], len(shown["failed_snapshots"]) > 0) == ("restore-error", True)
    assert "is down; have the operator start it" in shown["fault"]["message"]
    assert (story.since(), guest.server()["locked"]) == (["lock", "stop"], True)
    refused = story.retried(kept)
    assert (refused.status_code, "does not answer" in refused.text) == (409, True), refused.text
    volume.start()
    until(lambda: story.retried(kept).status_code == 202, PATIENCE)
    shown = story.user.settled(kept)
    assert (shown["status"], shown["fault"], guest.read()) == ("available", None, ["then"] * 3)
    assert set(story.since()) == {"lock", "unlock", "start"}
    story.user.delete(kept)
    story.holds_nothing()


def test_cinder_is_away_in_a_snapshot(story: Story) -> None:
    story.away("POST snapshots", 2)
    shown = story.user.settled(story.begin())
    assert (shown["status"], shown["fault"], shown["consistency"]["level"]) == ("available", None, "crash")
    # Whatever was asked for meanwhile is done late, and is none of the snapshot's.
    cut = set(shown["snapshots"].values())
    until(lambda: story.snapshots() == cut, PATIENCE)
    asked = story.since()
    assert (set(asked), asked.count("pause")) == ({"pause", "unpause"}, asked.count("unpause"))
    story.user.delete(shown["id"])
    story.holds_nothing()


def test_cinder_is_away_in_a_restore(story: Story) -> None:
    guest, kept = story.guest, story.cut()
    story.away("revert", 2)
    story.begin(kept)
    shown = story.user.settled(kept)
    assert (shown["status"], shown["fault"], guest.read()) == ("available", None, ["then"] * 3)
    assert story.since() == ["lock", "stop", "unlock", "start"]
    story.user.delete(kept)
    story.holds_nothing()
