"""The service is killed when one driver has cut its volumes and another one has not: nothing half-made is completed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.forks import ForkServer
from tests.lab.storage_virtualize.server import SimulatedArray
from tests.several.stage import Volumes, make

pytestmark = pytest.mark.crash


class World:
    def __init__(self, root: Path, arrays: dict[str, SimulatedArray], server: ForkServer) -> None:
        make(root, arrays)
        self.volumes = Volumes(root, arrays)
        self._root, self._server = root, server

    def play(self, request: str, after: list[str] | None = None) -> dict[str, Any]:
        told: dict[str, Any] = self._server.order("play", root=str(self._root), request=request, after=after)
        return told

    def recover(self) -> dict[str, Any]:
        told: dict[str, Any] = self._server.order("recover", root=str(self._root))
        return told


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    made = ForkServer("tests.several.killed")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def world(tmp_path: Path, arrays: dict[str, SimulatedArray], server: ForkServer) -> World:
    return World(tmp_path, arrays, server)


def restore(world: World) -> None:
    told = world.play("restore")
    assert (told["signal"], told["status"]) == (0, 202), told


BETWEEN = [[], ["files"], ["storage_virtualize"], ["files", "storage_virtualize"]]


@pytest.mark.parametrize("after", BETWEEN, ids=lambda after: "+".join(after) or "none")
def test_a_snapshot_has_all_volumes_of_one_cut(world: World, after: list[str]) -> None:
    world.volumes.write("1")
    assert world.play("create", after)["signal"] == signal.SIGKILL
    world.volumes.write("2")
    left = world.recover()
    assert [one["status"] for one in left["snapshots"]] == ["available"], left
    assert [(driver, ready) for driver, _volume, ready in left["copies"]] == [
        *[("files", True)] * 2,
        *[("storage_virtualize", True)] * 2,
    ]
    world.volumes.write("3")
    restore(world)
    assert world.volumes.read() == world.volumes.all("2")


@pytest.mark.parametrize("after", BETWEEN[1:3], ids="+".join)
def test_a_restore_has_safety_copies_of_one_cut_and_goes_on(world: World, after: list[str]) -> None:
    world.volumes.write("1")
    assert world.play("create")["status"] == 200
    world.volumes.write("2")
    assert world.play("restore", after)["signal"] == signal.SIGKILL
    left = world.recover()
    assert [one["status"] for one in left["snapshots"]] == ["available"], left
    assert len(left["copies"]) == 4
    assert world.volumes.read() == world.volumes.all("1")
