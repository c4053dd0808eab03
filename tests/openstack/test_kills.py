"""Services of the cloud, and our own, die while operations run; every operation ends in a true status all the same.

The seed is printed; `STILLFRAME_KILLS_SEED` plays the same story again, `STILLFRAME_KILLS` makes it longer.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any, Final

import pytest
import requests

from tests.lab.openstack.fixtures import needs_lab
from tests.lab.openstack.lab import Lab
from tests.lab.openstack.services import until
from tests.lab.openstack.tenant import Tenant, checked
from tests.openstack.guest import Guest
from tests.openstack.service import ENDED, PATIENCE, Stillframe, User, holdings

pytestmark = [pytest.mark.openstack, needs_lab]

ROUNDS: Final = int(os.environ.get("STILLFRAME_KILLS", "5"))
VICTIMS: Final = (
    "stillframe",
    "stillframe",
    "cinder-volume-rawfile",
    "cinder-volume-rawfile",
    "cinder-api",
    "nova-compute",
    "nova-api",
    "keystone",
    "rabbit",
)


def tell(line: str) -> None:
    """Pytest shows it where the story failed."""
    print(line)  # noqa: T201


class Patient(User):
    """A user who asks again while something of the cloud is down."""

    def ask(self, method: str, url: str, body: object = None) -> requests.Response:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                reply = super().ask(method, url, body)
            except Exception:
                # Keystone may not have given a token, either.
                if time.monotonic() > end:
                    raise
            else:
                # A host that has just been started does not answer yet, and is asked for nothing.
                away = reply.status_code in (500, 503) or (reply.status_code == 409 and "does not answer" in reply.text)
                if not away or time.monotonic() > end:
                    return reply
            time.sleep(0.5)


@pytest.fixture
def patient(lab: Lab, user: User, service: Stillframe) -> Patient:
    project_id = user.project_id
    return Patient(lab, user.name, f"{service.url}/compute/v2.1/{project_id}", f"{service.url}/volume/v3/{project_id}")


def strike(lab: Lab, service: Stillframe, story: random.Random) -> str:
    """Kill somebody within the next seconds, and bring them back; who it was."""
    victim = story.choice(VICTIMS)
    time.sleep(story.uniform(0, 2.5))
    target: Any = service if victim == "stillframe" else lab.services[victim]
    target.kill()
    time.sleep(story.uniform(0, 2))
    target.start()
    return victim


def settle(user: User, snapshot_id: str) -> dict[str, Any]:
    end = time.monotonic() + 2 * PATIENCE
    while (shown := user.show(snapshot_id))["status"] not in ENDED:
        assert time.monotonic() < end, shown
        time.sleep(0.3)
    return shown


def look(user: User, snapshot_id: str) -> str:
    """The status of a snapshot; of one that is gone, nothing."""
    reply = user.snapshots(path=f"/{snapshot_id}")
    return "" if reply.status_code == 404 else str(checked(reply, 200)["instance_snapshot"]["status"])


def come_through(user: User, guest: Guest, snapshot_id: str, shown: dict[str, Any]) -> dict[str, Any]:
    """Retry a restore until it has come through; what Cinder was left with is put right on the way."""
    for _ in range(4):
        if shown["status"] == "available":
            return shown
        assert shown["status"] == "restore-error", shown
        body = {"vm-restore": {"instance_snapshot_id": snapshot_id, "retry": True, "force": True}}
        checked(user.act(guest.id, body), 202)
        shown = settle(user, snapshot_id)
    raise AssertionError(shown)


def test_whoever_dies_every_operation_ends_truly_and_nothing_is_left(
    lab: Lab, tenant: Tenant, guest: Guest, patient: Patient, service: Stillframe
) -> None:
    seed = int(os.environ.get("STILLFRAME_KILLS_SEED", random.SystemRandom().randrange(10**6)))
    tell(f"seed {seed}")
    story, before = random.Random(seed), holdings(lab, tenant)
    guest.write("first")
    kept = patient.create(guest.id)["id"]
    for number in range(ROUNDS):
        guest.write(f"now {number}")
        act: Callable[..., None] = story.choice([snapshot_and_delete, restore])
        act(lab, service, story, guest, patient, kept, number)
        until(guest.is_whole, PATIENCE)
    patient.delete(kept)
    until(lambda: holdings(lab, tenant) == before, 30)


def snapshot_and_delete(
    lab: Lab, service: Stillframe, story: random.Random, guest: Guest, user: User, _kept: str, number: int
) -> None:
    made = checked(user.act(guest.id, {"vm-snapshot": {"name": "story"}}), 200)["instance_snapshot"]["id"]
    victim = strike(lab, service, story)
    shown = settle(user, made)
    tell(f"{number}: {victim} died during a snapshot: {shown['status']} {shown['fault']}")
    assert shown["status"] in ("available", "error")
    assert (shown["snapshots"] is None) == (shown["status"] == "error")
    checked(user.snapshots("DELETE", f"/{made}"), 200)
    victim = strike(lab, service, story)
    until(lambda: look(user, made) != "deleting", 2 * PATIENCE)
    if look(user, made):
        tell(f"{number}: {victim} died during a deletion: {user.show(made)['fault']}")
        user.delete(made)


def restore(
    lab: Lab, service: Stillframe, story: random.Random, guest: Guest, user: User, kept: str, number: int
) -> None:
    body = {"vm-restore": {"instance_snapshot_id": kept, "force": True}}
    checked(user.act(guest.id, body), 202)
    victim = strike(lab, service, story)
    shown = settle(user, kept)
    tell(f"{number}: {victim} died during a restore: {shown['status']} {shown['fault']}")
    undone = shown["status"] == "available" and guest.read() == [f"now {number}"] * 3
    # What is available without a word has been restored.
    assert shown["fault"] is not None or not undone
    if not undone:
        come_through(user, guest, kept, shown)
        assert guest.read() == ["first"] * 3
