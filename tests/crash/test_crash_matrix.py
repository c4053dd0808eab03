"""The crash matrix: whatever instant a service is killed at, the world ends as if it had not been.

The points are found by playing each operation once undisturbed; then the operation is played anew for every point, in
a world laid out anew, killed there, and a new service is started on what is left.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.crash import world
from tests.harness.forks import ForkServer
from tests.lab.filesystems import mounted

pytestmark = pytest.mark.crash

#: What leads to the operation's start, and the request that is played.
OPERATIONS: Final = {
    "create": ([], "create"),
    "delete": (["create"], "delete"),
    "restore": (["create", "damage"], "restore"),
    "restore with a failure": (["create", "damage", "break"], "restore"),
    "retry": (["create", "damage", "break", "restore", "mend"], "retry"),
    "rollback": (["create", "damage", "break", "restore", "mend"], "rollback"),
    "delete after a failed restore": (["create", "damage", "break", "restore"], "delete"),
}


#: The same with an instance that runs: it is held still for the cut, or shut down for the restore and started again.
#: On a file system that cannot share blocks only the cut differs, which is then QEMU's own.
RUNNING: Final = [
    ("xfs", "create"),
    ("ext4", "create"),
    ("xfs", "restore"),
    ("xfs", "restore with a failure"),
    ("xfs", "rollback"),
]


class Stage:
    """The process that forks services, and the folder that their worlds are laid out in."""

    def __init__(self, folder: Path, *, qemu: bool = False, program: str = "tests.crash.stage") -> None:
        self.root = folder / "world"
        self._qemu = qemu
        self._base = folder / "base"
        self._server = ForkServer(program)

    def close(self) -> None:
        self._server.close()

    def order(self, do: str, **details: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._server.order(do, root=str(self.root), **details)
        return answer

    def lay_out(self, steps: list[str]) -> None:
        """Make the world that an operation starts from, and keep it."""
        world.make(self.root, qemu=self._qemu)
        self.order("prepare", steps=steps)
        self.halt()
        self.root.rename(self._base)

    def reset(self) -> None:
        """The kept world again, at the same place: rows and declarations name it by its path."""
        self.halt()
        shutil.rmtree(self.root, ignore_errors=True)
        subprocess.run(["cp", "-a", "--reflink=auto", str(self._base), str(self.root)], check=True)
        if self._qemu and not list((self.root / "state" / "local" / "fences").glob("*")):
            self.order("boot")

    def halt(self) -> None:
        if self._qemu and self.root.exists():
            self.order("halt")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.close()


@pytest.fixture
def running_stage(file_system: str, tmp_path: Path) -> Iterator[Stage]:
    """A world whose instance runs, on a file system of its own."""
    with mounted(tmp_path, file_system, 512 << 20) as folder:
        stage = Stage(folder, qemu=True)
        yield stage
        stage.halt()
        stage.close()


@pytest.mark.lasts(70)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_kill_at_any_point_changes_nothing_about_how_an_operation_ends(stage: Stage, operation: str) -> None:
    kill_everywhere(stage, operation)


@pytest.mark.lasts(150)
@pytest.mark.parametrize(("file_system", "operation"), RUNNING)
def test_a_kill_at_any_point_leaves_a_running_instance_running(running_stage: Stage, operation: str) -> None:
    kill_everywhere(running_stage, operation)


def kill_everywhere(stage: Stage, operation: str) -> None:
    """Play an operation for every point that it has, kill it there, and compare what is left in the end."""
    steps, request = OPERATIONS[operation]
    stage.lay_out(steps)
    stage.reset()
    before = stage.order("recover")
    stage.reset()
    seen = stage.order("play", at=None, strike="kill", request=request)["seen"]
    after = stage.order("recover")
    assert before != after
    wrong, unreached = [], 0
    for point, name in enumerate(seen):
        stage.reset()
        played = stage.order("play", at=point, strike="kill", request=request)
        if played["signal"] != signal.SIGKILL:
            # How often a claim is renewed and a report is written depends on the time that a play takes.
            assert len(played["seen"]) <= point, f"point {point} ({name}) was passed by: {played}"
            unreached += 1
        left = stage.order("recover")
        # A request that was killed before it was accepted has not happened; the client knows, for it got no reply.
        if left != after and not (left == before and "before commit" not in seen[:point]):
            wrong.append((point, name, _difference(left, after)))
    assert not wrong, "\n".join(f"killed at {point}, {name}: {what}" for point, name, what in wrong)
    assert unreached <= len(seen) // 10


def _difference(left: dict[str, Any], right: dict[str, Any]) -> str:
    return "; ".join(f"{key} is {left.get(key)}, not {right[key]}" for key in right if left.get(key) != right[key])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_lost_reply_changes_nothing_about_how_an_operation_ends(stage: Stage, operation: str) -> None:
    steps, request = OPERATIONS[operation]
    stage.lay_out(steps)
    stage.reset()
    seen = stage.order("play", at=None, strike="lost", request=request)["seen"]
    after = stage.order("recover")
    wrong = []
    for point, name in calls(seen):
        stage.reset()
        stage.order("play", at=point, strike="lost", request=request)
        left = stage.order("recover")
        if left != after:
            wrong.append((point, name, _difference(left, after)))
    assert not wrong, "\n".join(f"lost at {point}, {name}: {what}" for point, name, what in wrong)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_call_refused_for_good_leaves_a_status_with_a_way_out(stage: Stage, operation: str) -> None:
    steps, request = OPERATIONS[operation]
    stage.lay_out(steps)
    stage.reset()
    before = stage.order("recover")
    stage.reset()
    seen = stage.order("play", at=None, strike="refused", request=request)["seen"]
    for point, name in calls(seen):
        stage.reset()
        played = stage.order("play", at=point, strike="refused", request=request)
        left = stage.order("recover")
        told = f"refused at {point}, {name}, answered {played['status']} {played['reply']}: {left}"
        if played["status"] >= 400:
            assert left == before, told
            continue
        status = left["snapshots"][0]["status"] if left["snapshots"] else "gone"
        assert left["locks"] == 0, told
        assert not status.endswith("ing") or status == "error-deleting", told
        assert left["fences"] == [int(status.startswith(("restore-", "rollback-")))] * 2 or "delete" in operation, told
        if status == "error":
            assert left["snapshots"][0]["fault"] == "backend-error", told
        if status == "restore-error":
            kept = left["snapshots"][0]["temp_snapshots"]
            assert kept is None or set(kept) == {"a", "b"}, told
        if status != "gone":
            stage.order("play", at=None, strike="kill", request="delete")
        cleared = stage.order("recover")
        assert (cleared["snapshots"], cleared["copies"], cleared["fences"]) == ([], [], [0, False]), told
        assert cleared["files"] == [".stillframe", "a.img", "b.img"] or cleared["files"] == ["a.img", "b.img"], told


def calls(seen: list[str]) -> list[tuple[int, str]]:
    """The driver calls among the points."""
    return [(point, name) for point, name in enumerate(seen) if name.startswith("call ")]
