"""A guest that nobody has seen free: the snapshot fails and says so, and the guest is let go as soon as it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from falcon.testing import TestClient

from stillframe import main
from stillframe.domain.leftover import LeftoverKind
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.platform import Drivers
from stillframe.drivers.qemu.commands import Qemu
from stillframe.drivers.qemu.compute import QemuCompute
from stillframe.drivers.qemu.declaration import Disk
from stillframe.drivers.qemu.guard import Guard
from stillframe.drivers.qemu.leftovers import QemuLeftovers
from stillframe.service.held_guests import HeldGuests
from stillframe.settings import Settings, load
from stillframe.testing.world import SIZE, a_call
from tests.conformance.worlds import LocalWorld, run
from tests.harness.faults import wait_until
from tests.lab.speakers import ScriptedAgent, speaking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Ward:
    """The whole service, and a machine whose guest agent does as it is told by the test."""

    def __init__(self, folder: Path) -> None:
        self.local, self.agent = LocalWorld(folder, Format.RAW), ScriptedAgent()
        path = self.local.disks / "disk"
        run("qemu-img", "create", "-q", "-f", "raw", str(path), str(SIZE))
        self.talk = self.local.sockets / "agent"
        self.instance = self.local.declare("vm", [Disk(name="root", path=path, format=Format.RAW)], agent=self.talk)
        self.local.compute.start(a_call(), self.instance.id)
        overrides: list[tuple[str | None, str, object]] = [
            (None, "state_dir", str(folder / "service")),
            (None, "auth_strategy", "noauth"),
        ]
        self.settings: Settings = load(overrides=overrides)
        self.start()

    def start(self) -> None:
        local = self.local
        self.guard = Guard()
        compute = QemuCompute(
            local.instances,
            local.state,
            local.files,
            Qemu(freeze_timeout=0.5),
            guard=self.guard,
            release_seconds=0.5,
        )
        leftovers = QemuLeftovers(local.declarations, compute.holding)
        self.drivers = Drivers(compute, local.storage, (leftovers,))
        self.service = main.build(self.settings, drivers=self.drivers)
        self.service.start()

    def stop(self) -> None:
        self.service.stop()
        # Nothing is left that could let the guest go but a mark: the watchdog has died, too.
        self.guard.close()

    def ask(self, method: str, path: str, body: object = None) -> Any:
        wsgi = self.service.wsgi
        client = TestClient(
            lambda environ, start_response: wsgi(environ, start_response),  # noqa: PLW0108 -- a plain WSGI callable
            headers={"Host": "localhost"},
        )
        return client.simulate_request(method, path, json=body, remote_addr="127.0.0.1")

    def create(self) -> str:
        path = f"/compute/v2.1/project/servers/{self.instance.id}/action"
        reply = self.ask("POST", path, {"vm-snapshot": {"name": "s"}})
        assert reply.status_code == 200, reply.text
        return str(reply.json["instance_snapshot"]["id"])

    def show(self, snapshot_id: str) -> dict[str, Any]:
        found = self.ask("GET", f"/volume/v3/project/instance-snapshots/{snapshot_id}").json
        shown: dict[str, Any] = found["instance_snapshot"]
        return shown

    def settled(self, snapshot_id: str) -> dict[str, Any]:
        wait_until(lambda: self.show(snapshot_id)["status"] != "creating", "it is still being created")
        return self.show(snapshot_id)

    def counted(self) -> float:
        lines = self.ask("GET", "/metrics").text.splitlines()
        return next(float(one.split()[1]) for one in lines if one.startswith("stillframe_guests_held "))

    def told(self) -> list[str]:
        """What `stillframe doctor` looks at."""
        left = main.build_leftovers(self.settings, self.service.database, self.drivers)
        return [one.id for one in left.look(LeftoverKind.QUIESCE)]


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    made = Ward(tmp_path)
    try:
        with speaking(made.talk, made.agent.part):
            yield made
            made.agent.go_on()
            made.stop()
    finally:
        made.talk.unlink(missing_ok=True)
        made.local.close()


@pytest.mark.parametrize("where", ["guest-fsfreeze-freeze", "guest-fsfreeze-thaw"])
def test_a_guest_that_may_be_held_is_told_of_everywhere_until_it_was_seen_free(ward: Ward, where: str) -> None:
    ward.agent.hangs = {where}
    shown = ward.settled(ward.create())
    assert (shown["status"], shown["fault"]["code"], shown["snapshots"]) == ("error", "guest-held", None)
    assert "/" not in shown["fault"]["message"]
    wait_until(lambda: ward.show(shown["id"])["guest_may_be_held"], "nobody says that it is held")
    assert (ward.told(), ward.counted()) == ([ward.instance.id], 1)
    ward.agent.go_on()
    wait_until(lambda: ward.show(shown["id"])["guest_may_be_held"] is False, "nobody lets it go")
    assert (ward.agent.frozen, ward.agent.heard[-1]) == (False, "guest-fsfreeze-thaw")
    assert (ward.told(), ward.counted()) == ([], 0)
    assert ward.settled(ward.create())["consistency"]["level"] == "filesystem"


def test_a_service_that_starts_lets_the_guests_go_that_an_earlier_one_left(ward: Ward) -> None:
    ward.agent.hangs = {"guest-fsfreeze-freeze"}
    shown = ward.settled(ward.create())
    ward.service.stop()
    mark = ward.local.state / "quiesced" / ward.instance.id
    assert mark.exists()
    ward.agent.go_on()
    ward.start()
    wait_until(lambda: ward.show(shown["id"])["guest_may_be_held"] is False, "nobody lets it go")
    assert (ward.agent.frozen, mark.exists()) == (False, False)


def test_a_guest_that_another_tool_has_frozen_is_cut_and_stays_frozen(ward: Ward) -> None:
    ward.agent.frozen = True
    shown = ward.settled(ward.create())
    assert (shown["status"], shown["consistency"]["level"], shown["guest_may_be_held"]) == ("available", "crash", False)
    assert "another tool" in shown["consistency"]["reason"]
    assert (ward.agent.frozen, ward.agent.heard) == (True, [])


def test_a_look_from_before_an_operation_ended_is_no_answer_about_it() -> None:
    looks = iter([[], ["held"]])
    guests = HeldGuests(lambda: next(looks), seconds=3600)
    assert guests.ids() == frozenset()
    assert guests.ids(changed=1800.0) == frozenset()
    assert guests.ids(changed=0.0) == frozenset({"held"})
