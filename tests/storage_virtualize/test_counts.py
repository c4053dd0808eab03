"""How many commands an instance of eight volumes takes: an array takes few a second, and others have to share them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.storage_virtualize.array import Array
from tests.lab.storage_virtualize.objects import Behaviour
from tests.lab.storage_virtualize.server import SimulatedArray, simulated
from tests.storage_virtualize.running import Service, configured, declare, running

VOLUMES = [f"disk-{letter}" for letter in "abcdefgh"]


@contextmanager
def at_most(count: int, served: SimulatedArray) -> Iterator[None]:
    served.faults.commands.clear()
    yield
    assert len(served.faults.commands) <= count, served.faults.commands


@pytest.mark.parametrize("names", ["alike", "not alike"])
@pytest.mark.parametrize("copies", ["flashcopy", "snapshots"])
def test_eight_volumes_take_few_commands(tmp_path: Path, copies: str, names: str) -> None:
    vdisks = VOLUMES if names == "alike" else [f"{name[-1]}-{name}" for name in VOLUMES]
    array = Array(behaviour=Behaviour(speed=100.0, code_level="8.6.2.0 (build 169.4.2311)"))
    with simulated(tmp_path, array) as served:
        instance_id = declare(tmp_path, served, *vdisks)
        # So long the threads of an operation wait for each other, which a busy machine does not start at once.
        config = configured(tmp_path, served, copies=copies, poll_seconds=0.5)
        with running(config, served, instance_id) as service:
            _play(service, served)
        # What the array deletes by itself takes a while.
        served.wait_for({"vdisks": sorted(vdisks), "mappings": [], "groups": [], "snapshots": []})


def _play(service: Service, served: SimulatedArray) -> None:
    service.fill("x")
    before = service.read()
    with at_most(60, served):
        snapshot_id = service.snapshot("one")
    service.write("y")
    with at_most(120, served):
        shown = service.restore(snapshot_id)
    assert shown["status"] == "available", shown
    assert service.read() == before
    service.write("z")
    with at_most(40, served):
        service.delete(snapshot_id)
