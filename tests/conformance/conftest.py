from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.storage_virtualize.options import Options, Strategy
from stillframe.testing.world import MIB, World
from tests.conformance.worlds import ArrayWorld, LocalWorld, MemoryWorld, RouterWorld
from tests.lab.filesystems import mounted
from tests.lab.storage_virtualize.array import Array
from tests.lab.storage_virtualize.objects import Behaviour
from tests.lab.storage_virtualize.server import simulated

KINDS = {"xfs": 512 * MIB, "btrfs": 512 * MIB, "ext4": 512 * MIB}


@pytest.fixture(scope="session")
def file_systems(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("mounts")
        yield {kind: stack.enter_context(mounted(folder, kind, size)) for kind, size in KINDS.items()}


def local_world(request: pytest.FixtureRequest, kind: str, form: str) -> Iterator[LocalWorld]:
    folder = request.getfixturevalue("file_systems")[kind] / uuid.uuid4().hex
    world = LocalWorld(folder, Format(form))
    try:
        yield world
    finally:
        world.close()
        shutil.rmtree(folder)


LOCAL = [f"{kind}-{form}" for kind in KINDS for form in Format]


ARRAYS = {
    "array": Behaviour(speed=100.0),
    "lingering-array": Behaviour(speed=100.0, linger=True),
    "array-of-snapshots": Behaviour(speed=100.0, code_level="8.6.2.0 (build 169.4.2311)"),
}


def array_world(folder: Path, behaviour: Behaviour) -> Iterator[ArrayWorld]:
    with simulated(folder, Array(behaviour=replace(behaviour))) as served:
        # An array whose code level has snapshots is used by them.
        world = ArrayWorld(folder, served, Options(poll_seconds=0.01, strategy=Strategy.AUTO))
        try:
            yield world
        finally:
            world.close()


def router_world(folder: Path, room: Path) -> Iterator[RouterWorld]:
    with simulated(folder, Array(behaviour=Behaviour(speed=100.0))) as served:
        world = RouterWorld(room / uuid.uuid4().hex, Format.RAW, served)
        try:
            yield world
        finally:
            world.close()
            shutil.rmtree(world.folder)


@pytest.fixture(params=["memory", *LOCAL, *ARRAYS, "router"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Every world a driver has."""
    if request.param == "memory":
        yield MemoryWorld()
    elif request.param == "router":
        room = request.getfixturevalue("file_systems")["xfs"]
        yield from router_world(request.getfixturevalue("tmp_path"), room)
    elif request.param in ARRAYS:
        yield from array_world(request.getfixturevalue("tmp_path"), ARRAYS[request.param])
    else:
        yield from local_world(request, *request.param.split("-"))


@pytest.fixture(params=LOCAL)
def local(request: pytest.FixtureRequest) -> Iterator[LocalWorld]:
    """The worlds of image files."""
    yield from local_world(request, *request.param.split("-"))


@pytest.fixture(params=["ext4-raw", "ext4-qcow2"])
def plain(request: pytest.FixtureRequest) -> Iterator[LocalWorld]:
    """The worlds in which files cannot share blocks."""
    yield from local_world(request, *request.param.split("-"))
