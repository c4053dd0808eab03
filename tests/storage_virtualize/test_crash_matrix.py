"""The crash matrix over the commands of an array: killed before or after any of them, the world ends the same.

The array is simulated in this process and outlives every kill; the service is a process of its own. What is compared
are the bytes of all vdisks, everything that is on the array, and the rows of the service.

By default some operations are played that together give every command of the driver; with `STILLFRAME_CRASHES=all` in
the environment, all of them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from stillframe.drivers.qemu import options as qemu_options
from stillframe.drivers.qemu.declaration import Declarations
from stillframe.drivers.storage_virtualize import naming
from tests.crash.test_crash_matrix import Stage
from tests.lab.storage_virtualize.array import Array
from tests.lab.storage_virtualize.objects import GRAIN, Behaviour
from tests.lab.storage_virtualize.server import SimulatedArray, simulated
from tests.storage_virtualize import stage as service

pytestmark = pytest.mark.crash

_TWO: Final = ["create old", "write", "create kept", "write"]
_FAILED: Final = [*_TWO, "break", "restore kept"]

#: What leads to the operation's start, and the request that is played; an older snapshot depends on what it is about.
OPERATIONS: Final = {
    "create": (["create old", "write"], "create kept"),
    "delete the middle one": ([*_TWO, "create new", "write"], "delete kept"),
    "restore": (_TWO, "restore kept"),
    "restore of the oldest": ([*_TWO, "create new", "write"], "restore old"),
    "restore with a failure": ([*_TWO, "break"], "restore kept"),
    "retry": ([*_FAILED, "mend"], "retry kept"),
    "rollback": ([*_FAILED, "mend"], "rollback kept"),
    "delete after a failed restore": (_FAILED, "delete kept"),
}
#: The same by snapshots of the array.
BY_SNAPSHOTS: Final = ("create", "delete the middle one", "restore", "retry", "rollback")

ENDS: Final = {"available", "error", "restore-error", "rollback-error", "error-deleting"}

ALL: Final = os.environ.get("STILLFRAME_CRASHES") == "all"
#: What is played by default.
SOME: Final = {
    ("create", "flashcopy"),
    ("delete the middle one", "flashcopy"),
    ("rollback", "flashcopy"),
    ("restore", "snapshots"),
}

BY_MAPPINGS: Final = [(name, "flashcopy") for name in OPERATIONS]
BOTH_WAYS: Final = [*BY_MAPPINGS, *((name, "snapshots") for name in BY_SNAPSHOTS)]


def chosen(modes: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those that are to be played."""
    return [mode for mode in modes if ALL or mode in SOME]


class World:
    """A simulated array and a stage for services that use it, laid out alike for every play."""

    def __init__(self, folder: Path, served: SimulatedArray, copies: str) -> None:
        self.served = served
        self._stage = Stage(folder, program="tests.storage_virtualize.stage")
        self._base = folder / "base"
        self._written = 0
        service.make(self._stage.root, served.endpoint, served.ca_file, copies)
        for name in service.VOLUMES:
            served.array.add_vdisk(name, 4 * GRAIN)
        self._write()
        self.empty = self._objects()

    def close(self) -> None:
        self._stage.close()

    def lay_out(self, steps: list[str]) -> None:
        """Make the world that an operation starts from, and keep it."""
        for step in steps:
            if step == "write":
                self._write()
            elif step == "break":
                self._break()
            elif step == "mend":
                self.served.faults.clear()
            else:
                self._stage.order("prepare", request=step)
        self._kept = self.served.keep()
        self._armed = list(self.served.faults.armed)
        shutil.copytree(self._stage.root, self._base)

    def reset(self) -> None:
        """The kept world again."""
        shutil.rmtree(self._stage.root)
        subprocess.run(["cp", "-a", str(self._base), str(self._stage.root)], check=True)
        self.served.put_back(self._kept)
        self.served.faults.clear()
        self.served.faults.armed.extend(self._armed)

    def play(self, request: str, at: int | None = None, strike: str = "kill") -> dict[str, Any]:
        return self._stage.order("play", at=at, strike=strike, request=request)

    def recover(self) -> dict[str, Any]:
        """Start a service on what is left; afterwards: its rows, and what the array holds, without ids."""
        told = self._stage.order("recover")
        return {**told, "array": self._objects(), "bytes": self._bytes()}

    def _write(self) -> None:
        """Another grain of each volume gets other bytes."""
        self._written += 1
        for name in service.VOLUMES:
            content = f"{name}{self._written}".encode().ljust(16) * (GRAIN // 16)
            self.served.write(name, self._written % 4 * GRAIN, content)

    def _break(self) -> None:
        """Let the array refuse every restore of the second volume, of either kind."""
        for command, subject in (("startfcmap", f"{naming.REVERSE}{self._second()}*"), ("restorefromsnapshot", "b")):
            self.served.faults.put(command, "fail", times=1000, code="CMMVC5907E", subject=subject)

    def _second(self) -> str:
        settings = service.settings_of(self._stage.root)
        declaration = Declarations(qemu_options.read(settings).instances).all()[0]
        return naming.write(declaration.volume_id(declaration.vdisks[1]))

    def _objects(self) -> dict[str, Any]:
        objects = self.served.objects()
        return {
            "vdisks": len(objects["vdisks"]),
            "mappings": len(objects["mappings"]),
            "groups": objects["groups"],
            "snapshots": len(objects["snapshots"]),
        }

    def _bytes(self) -> list[str]:
        """What every vdisk reads as, the hidden ones too."""
        with self.served.lock:
            self.served.array.advance()
            return sorted(
                hashlib.sha256(self.served.array.read(one.name)).hexdigest()[:16] if one.online else "offline"
                for one in self.served.array.vdisks.values()
            )


@pytest.fixture
def world(tmp_path: Path, copies: str) -> Iterator[World]:
    behaviour = Behaviour(speed=1e6, flush_seconds=0.005, code_level="8.6.2.0 (build 169.4.2311)")
    with simulated(tmp_path, Array(behaviour=behaviour)) as served:
        world = World(tmp_path, served, copies)
        yield world
        world.close()


@pytest.mark.parametrize(("operation", "copies"), chosen(BOTH_WAYS))
def test_a_kill_before_or_after_any_command_changes_nothing(world: World, operation: str) -> None:
    steps, request = OPERATIONS[operation]
    world.lay_out(steps)
    world.reset()
    seen = world.play(request)["seen"]
    after = world.recover()
    assert len(seen) > 1
    wrong = []
    for point, name in enumerate(seen):
        world.reset()
        played = world.play(request, at=point)
        # The volumes are worked on beside each other, so that a play can need a command less than another one.
        assert played["signal"] == signal.SIGKILL or len(played["seen"]) <= point, f"{point} ({name}): {played}"
        left = world.recover()
        if left != after:
            wrong.append(f"killed at {point}, {name}: {_difference(left, after)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("operation", "copies"), chosen(BY_MAPPINGS))
def test_a_lost_reply_of_any_command_changes_nothing(world: World, operation: str) -> None:
    steps, request = OPERATIONS[operation]
    world.lay_out(steps)
    world.reset()
    seen = world.play(request, strike="lost")["seen"]
    after = world.recover()
    wrong = []
    for point, name in enumerate(seen):
        world.reset()
        world.play(request, at=point, strike="lost")
        left = world.recover()
        if left != after:
            wrong.append(f"lost at {point}, {name}: {_difference(left, after)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("operation", "copies"), chosen(BY_MAPPINGS))
def test_a_refusal_of_any_command_leaves_a_way_out_and_nothing_on_the_array(world: World, operation: str) -> None:
    steps, request = OPERATIONS[operation]
    world.lay_out(steps)
    world.reset()
    seen = world.play(request, strike="refused")["seen"]
    for point, name in enumerate(seen):
        world.reset()
        world.play(request, at=point, strike="refused")
        left = world.recover()
        told = f"refused at {point}, {name}: {left}"
        assert left["locks"] == 0, told
        statuses = {one["name"]: one["status"] for one in left["snapshots"]}
        assert set(statuses.values()) <= ENDS, told
        world.served.faults.clear()
        for snapshot in statuses:
            world.play(f"delete {snapshot}")
        cleared = world.recover()
        assert (cleared["snapshots"], cleared["copies"], cleared["fences"]) == ([], [], [0, False]), told
        assert cleared["array"] == world.empty, told


def _difference(left: dict[str, Any], right: dict[str, Any]) -> str:
    return "; ".join(f"{key} is {left.get(key)}, not {right[key]}" for key in right if left.get(key) != right[key])
