"""What the service's user may not do on an array is told in plain words before anything is touched."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from stillframe.drivers.storage_virtualize.options import Strategy
from tests.cli.program import Place
from tests.conformance.worlds import ArrayWorld
from tests.harness.faults import wait_until
from tests.lab.storage_virtualize.server import SimulatedArray, simulated
from tests.storage_virtualize.conftest import Make
from tests.storage_virtualize.running import PROJECT, configured, declare, running

#: As IBM's Ansible collection and `lscurrentuser` spell them.
TOO_LITTLE = {
    "Monitor": "look and change nothing",
    "Service": "look and change nothing",
    "CopyOperator": "not make volumes",
    "RestrictedAdmin": "not remove volumes",
    "Restricted Administrator": "not remove volumes",
}


def changes(served: SimulatedArray) -> list[str]:
    return [one for one in served.faults.commands if not str(one).startswith("ls")]


def test_a_request_is_refused_and_goes_through_when_the_role_was_given(tmp_path: Path) -> None:
    with simulated(tmp_path) as served:
        instance_id = declare(tmp_path, served, "disk")
        config = configured(tmp_path, served)
        with running(config, served, instance_id) as service:
            kept = service.snapshot("kept")
        path, restore = f"/compute/v2.1/{PROJECT}/servers/{instance_id}/action", {"instance_snapshot_id": kept}
        served.faults.commands.clear()
        with running(config, served, instance_id) as service:
            for role, lack in TOO_LITTLE.items():
                served.array.behaviour.role = role
                for body in ({"vm-snapshot": {"name": "s"}}, {"vm-restore": restore}):
                    reply = service.call("POST", path, json=body)
                    assert (reply.status_code, f"has the role {role}, which may {lack}" in reply.text) == (400, True)
            assert (changes(served), service.show(kept)["status"]) == ([], "available")
            # As the message says: chuser -usergrp Administrator.
            served.array.behaviour.role = "Administrator"
            assert service.restore(kept)["status"] == "available"
            service.snapshot("another")


@pytest.mark.parametrize("role", ["Administrator", "SecurityAdmin", "Restricted Security Administrator", "A new one"])
def test_any_other_role_is_the_array_s_to_judge(make: Make, role: str) -> None:
    _try(make(), role)


def test_an_array_s_own_snapshots_need_no_volumes(make: Make) -> None:
    _try(make(Strategy.SNAPSHOTS, code_level="8.6.2.0 (build 1)"), "CopyOperator")


def _try(world: ArrayWorld, role: str) -> None:
    world.served.array.behaviour.role = role
    instance = world.add()
    world.storage.check_cut(instance, list(instance.volume_ids))


def test_an_array_that_does_not_tell_is_asked_as_before(make: Make) -> None:
    world = make()
    world.served.faults.put("lscurrentuser", "fail", code="CMMVC7205E")
    instance = world.add()
    world.storage.check_cut(instance, list(instance.volume_ids))


def test_the_log_and_the_doctor_tell_of_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with simulated(tmp_path) as served:
        served.array.behaviour.role = "Monitor"
        instance_id = declare(tmp_path, served, "disk")
        with caplog.at_level(logging.ERROR), running(configured(tmp_path, served), served, instance_id):
            wait_until(lambda: "has the role Monitor" in caplog.text, "the log has nothing")
        found = [one for one in Place(tmp_path).run("doctor", "-f", "json").document if "Monitor" in one["detail"]]
        assert [one["result"] for one in found] == ["fail"]
        assert "chuser -usergrp Administrator" in found[0]["mend"]
