"""Whatever is asked for in whatever order, and whenever the service is killed, it does what a page of Python says.

A run is reproduced by its seed; `CI` in the environment fixes the examples, and elsewhere each run takes others;
`STILLFRAME_STORIES` says how many. A failure is shrunk and printed as the calls that lead to it.
"""

from __future__ import annotations

import copy
import os
import random
import shutil
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from stillframe.drivers.qemu.declaration import Declarations
from tests.harness.forks import ForkServer
from tests.property.model import Model, Snapshot

pytestmark = pytest.mark.crash

#: Disk sizes; one is no whole number of blocks, and one has a hole to begin with.
SIZES: Final = {"a": 4096, "b": 5120, "c": 12288}
FIRST: Final = "the first"
_SNAPSHOTS: Final = "/volume/v3/demo/instance-snapshots"

_DISKS = st.sets(st.sampled_from(sorted(SIZES)))
_SOME_DISKS = st.sets(st.sampled_from(sorted(SIZES)), min_size=1)
_TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=6).map(lambda text: f"n{text}")
_FAILING = _DISKS | _SOME_DISKS
_SELDOM = st.sampled_from([None, None, None, None, *SIZES])
_WHICH = st.integers(0, 9)
#: Where each process is killed in turn, in points passed: the one that works, then those that take up what it left.
_KILLS: st.SearchStrategy[list[int]] = st.one_of(st.just([]), st.lists(st.integers(0, 70), min_size=1, max_size=3))


class Stage:
    """A world on files, and the process that keeps a service over it."""

    def __init__(self, folder: Path) -> None:
        self.root, self._base = folder / "world", folder / "base"
        self._server = ForkServer("tests.property.keeper")
        self._lay_out()
        declaration = next(iter(Declarations(self.root / "state" / "instances").all()))
        self.instance_id = declaration.id
        self.volume_ids = {disk.name: declaration.volume_id(disk) for disk in declaration.disks}
        # Every story begins with the same snapshot of everything.
        self.order("start", at=None, faults=[])
        body = {"vm-snapshot": {"name": FIRST}}
        made = self.order("ask", at=None, faults=[], method="POST", path=self.action_path, body=body)
        self.first = made["reply"]["instance_snapshot"]["id"]
        self.order("dismiss")
        self.root.rename(self._base)

    @property
    def action_path(self) -> str:
        return f"/compute/v2.1/demo/servers/{self.instance_id}/action"

    def reset(self) -> None:
        """A fresh world at the same place."""
        self.order("dismiss")
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self._base, self.root)

    def close(self) -> None:
        self.order("dismiss")
        self._server.close()

    def order(self, do: str, **details: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._server.order(do, root=str(self.root), **details)
        return answer

    def disk(self, name: str) -> Path:
        return self.root / "disks" / f"{name}.img"

    def _lay_out(self) -> None:
        disks, instances = self.root / "disks", self.root / "state" / "instances"
        disks.mkdir(parents=True)
        instances.mkdir(parents=True)
        lines = ['name = "vm"', 'project_id = "demo"', f'id = "{uuid.uuid5(uuid.NAMESPACE_OID, str(self.root))}"']
        for name, size in SIZES.items():
            lines += ["[[disks]]", f'name = "{name}"', f'path = "{self.disk(name)}"', 'format = "raw"']
            with self.disk(name).open("wb") as file:
                file.truncate(size)
                file.seek(size - 512)
                file.write(random.Random(name).randbytes(512))
        (instances / "vm.toml").write_text("\n".join(lines))


class Story(RuleBasedStateMachine):
    """Requests, writes and kills in any order; after each the world is compared with the model.

    A rule that has nothing to work on does nothing, rather than being excluded: how a kill turns out is not the same
    each time, and what is drawn next must not depend on it.
    """

    stage: ClassVar[Stage]

    def __init__(self) -> None:
        super().__init__()
        self.known: set[str] = set()
        self.shown: dict[str, Any] = {}
        self.asked = False

    @initialize()
    def lay_out(self) -> None:
        self.stage.reset()
        self.model = Model({name: self.stage.disk(name).read_bytes() for name in SIZES})
        self.model.create(self.stage.first, FIRST, "", SIZES, fails=False)
        self.agree(self.stage.order("start", at=None, faults=[])["world"])

    # What users do.

    @rule(disk=st.sampled_from(sorted(SIZES)), seed=st.integers(0, 99), at=st.floats(0, 1), length=st.integers(1, 5000))
    def write(self, disk: str, seed: int, at: float, length: int) -> None:
        if self.model.fence is not None:
            return
        offset = int(at * (SIZES[disk] - 1))
        data = random.Random(seed).randbytes(min(length, SIZES[disk] - offset))
        with self.stage.disk(disk).open("r+b") as file:
            file.seek(offset)
            file.write(data)
        content = bytearray(self.model.disks[disk])
        content[offset : offset + len(data)] = data
        self.model.disks[disk] = bytes(content)

    @rule(disks=_DISKS, name=_TEXT, description=_TEXT, failing=_SELDOM, kills=_KILLS)
    def create(self, disks: set[str], name: str, description: str, failing: str | None, kills: list[int]) -> None:
        if self.model.fence is not None or len(self.model.snapshots) > 5:
            return
        body: dict[str, Any] = {"name": name, "description": description}
        if disks:
            body["volumes"] = sorted(self.stage.volume_ids[disk] for disk in disks)
        chosen = disks or set(SIZES)
        faults = [("complete", failing)] if failing else []
        world, accepted = self.ask("POST", self.stage.action_path, {"vm-snapshot": body}, faults, kills)
        if accepted:
            made = accepted["snapshot_id"]
            self.model.create(made, name, description, chosen, fails=failing in chosen)
        self.agree(world)

    @rule(which=_WHICH, failing=_FAILING, kills=_KILLS)
    def restore(self, which: int, failing: set[str], kills: list[int]) -> None:
        if not self.model.ready_for("restore"):
            return
        chosen = self.choose("restore", which)
        world, accepted = self.ask_for("restore", chosen, [("restore", disk) for disk in failing], kills)
        if accepted:
            self.model.restore(chosen.id, failing)
        self.agree(world)

    @rule(which=_WHICH, number=_WHICH, kills=_KILLS)
    def restore_that_cannot_take_its_safety_copies(self, which: int, number: int, kills: list[int]) -> None:
        if not self.model.ready_for("restore"):
            return
        chosen = self.choose("restore", which)
        disks = sorted(chosen.snapshots or ())
        world, accepted = self.ask_for("restore", chosen, [("complete", disks[number % len(disks)])], kills)
        if accepted:
            self.model.restore_undone(chosen.id)
        self.agree(world)

    @rule(which=_WHICH, failing=_FAILING, kills=_KILLS)
    def retry(self, which: int, failing: set[str], kills: list[int]) -> None:
        if not self.model.ready_for("retry"):
            return
        chosen = self.choose("retry", which)
        world, accepted = self.ask_for("retry", chosen, [("restore", disk) for disk in failing], kills)
        if accepted:
            self.model.retry(chosen.id, failing)
        self.agree(world)

    @rule(which=_WHICH, failing=_FAILING, kills=_KILLS)
    def rollback(self, which: int, failing: set[str], kills: list[int]) -> None:
        if not self.model.ready_for("rollback"):
            return
        chosen = self.choose("rollback", which)
        # What a restore has not touched needs not be put back, so nothing can fail there; the others have to be.
        failing = failing - (chosen.failed or set())
        world, accepted = self.ask_for("rollback", chosen, [("restore", disk) for disk in failing], kills)
        if accepted:
            self.model.rollback(chosen.id, failing)
        self.agree(world)

    @rule(kind=st.sampled_from(["restore", "retry", "rollback"]), which=_WHICH, kept=_SOME_DISKS)
    def put_back_and_keep_safety_copies(self, kind: str, which: int, kept: set[str]) -> None:
        """Not killed: what is taken up again first deletes its own safety copies, and here that would fail."""
        ready = self.with_fresh_safety_copies(kind)
        if not ready:
            return
        chosen = self.model.snapshots[ready[which % len(ready)]]
        world, accepted = self.ask_for(kind, chosen, [("delete", disk) for disk in kept], [])
        assert accepted
        left = kept & {*(chosen.temp or chosen.snapshots or ())}
        getattr(self.model, kind)(chosen.id, (), left)
        self.agree(world)

    @rule(which=_WHICH, failing=_DISKS, kills=_KILLS)
    def delete(self, which: int, failing: set[str], kills: list[int]) -> None:
        if not self.model.ready_for("delete"):
            return
        chosen = self.choose("delete", which)
        faults = [("delete", disk) for disk in failing]
        world, accepted = self.ask("DELETE", f"{_SNAPSHOTS}/{chosen.id}", None, faults, kills)
        if accepted:
            self.model.delete(chosen.id, failing)
        self.agree(world)

    @rule(which=_WHICH, name=st.none() | _TEXT, description=_TEXT)
    def rename(self, which: int, name: str | None, description: str) -> None:
        if not self.model.snapshots:
            return
        chosen = [*self.model.snapshots][which % len(self.model.snapshots)]
        changes = {"description": description} if name is None else {"name": name, "description": description}
        world, accepted = self.ask("PUT", f"{_SNAPSHOTS}/{chosen}", {"instance-snapshot": changes}, [], [])
        assert not accepted
        self.model.rename(chosen, changes)
        self.agree(world)

    # What changes nothing.

    @rule(kind=st.sampled_from(["restore", "retry", "rollback", "delete"]), which=_WHICH)
    def ask_out_of_turn(self, kind: str, which: int) -> None:
        known = [*self.model.snapshots, *self.model.gone, "nobody"]
        chosen = known[which % len(known)]
        expected = self.model.refusal(kind, chosen)
        if expected is None:
            return
        if kind == "delete":
            self.refused(expected, "DELETE", f"{_SNAPSHOTS}/{chosen}", None)
        else:
            self.refused(expected, "POST", self.stage.action_path, _restoring(kind, chosen))

    @rule(which=_WHICH)
    def ask_for_both_ways_out(self, which: int) -> None:
        if not self.model.snapshots:
            return
        chosen = [*self.model.snapshots][which % len(self.model.snapshots)]
        body = {"vm-restore": {"instance_snapshot_id": chosen, "retry": True, "rollback": True}}
        self.refused(400, "POST", self.stage.action_path, body)

    @rule(foreign=st.booleans())
    def ask_for_a_snapshot_that_cannot_be(self, foreign: bool) -> None:  # noqa: FBT001
        body: dict[str, Any] = {"name": "never"}
        if foreign:
            self.refused(400, "POST", self.stage.action_path, {"vm-snapshot": {**body, "volumes": ["nobody's"]}})
        elif self.model.fence is not None:
            self.refused(409, "POST", self.stage.action_path, {"vm-snapshot": body})

    @rule()
    def stop_and_start_anew(self) -> None:
        if not self.asked:
            return
        self.asked = False
        self.stage.order("dismiss")
        world = self.stage.order("start", at=None, faults=[])["world"]
        assert world == self.shown
        self.agree(world)

    # How it is asked and compared.

    def choose(self, kind: str, which: int) -> Snapshot:
        ready = self.model.ready_for(kind)
        return self.model.snapshots[ready[which % len(ready)]]

    def with_fresh_safety_copies(self, kind: str) -> list[str]:
        return [one for one in self.model.ready_for(kind) if not self.model.snapshots[one].stale]

    def ask_for(self, kind: str, chosen: Snapshot, faults: list[tuple[str, str]], kills: list[int]) -> Any:
        return self.ask("POST", self.stage.action_path, _restoring(kind, chosen.id), faults, kills)

    def ask(
        self, method: str, path: str, body: Any, faults: list[tuple[str, str]], kills: list[int]
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The world in the end, and the operation that was accepted, if the service lived to accept it."""
        self.asked = True
        points = iter([*kills, None])
        answer = self.stage.order("ask", at=next(points), faults=faults, method=method, path=path, body=body)
        code = answer.get("code")
        while "world" not in answer:
            assert answer["signal"] == signal.SIGKILL, answer
            answer = self.stage.order("start", at=next(points, None), faults=faults)
        assert code is None or code < 300, answer
        world = answer["world"]
        new = [operation for operation in world["operations"] if operation["id"] not in self.known]
        assert len(new) <= 1, new
        assert new or code is None or method == "PUT", "what was promised was forgotten"
        return world, new[0] if new else None

    def refused(self, expected: int, method: str, path: str, body: Any) -> None:
        answer = self.stage.order("ask", at=None, faults=[], method=method, path=path, body=body)
        assert answer["code"] == expected, answer
        assert answer["world"] == self.shown, "a request that was refused has changed something"

    def agree(self, world: dict[str, Any]) -> None:
        """Compare everything that can be seen with the model."""
        self.known = {operation["id"] for operation in world["operations"]}
        self.shown = copy.deepcopy(world)
        for name in SIZES:
            assert self.stage.disk(name).read_bytes() == self.model.disks[name], f"disk {name} has other bytes"
        ids = {copy["id"]: copy for copy in world["copies"]}
        expected = [*self.model.snapshots.values()][::-1]
        assert [one["id"] for one in world["snapshots"]] == [one.id for one in expected]
        owed, allowed = set(), set()
        for shown, snapshot in zip(world["snapshots"], expected, strict=True):
            self._agree_on_row(shown, snapshot)
            for kind, named in (("snapshot", shown["snapshots"]), ("safety", shown["temp_snapshots"])):
                for volume_id, copy_id in (named or {}).items():
                    disk = self._disk(volume_id)
                    allowed.add(copy_id)
                    owed.add(copy_id)
                    described = {"id": copy_id, "kind": kind, "snapshot": snapshot.id, "disk": disk, "ready": True}
                    assert ids.get(copy_id) == described
                    contents = snapshot.snapshots if kind == "snapshot" else snapshot.temp
                    if kind == "snapshot" or not snapshot.stale:
                        assert self._content(copy_id) == (contents or {})[disk], f"copy {described} has other bytes"
        assert owed <= ids.keys() <= allowed, f"left over: {ids.keys() - allowed}, missing: {owed - ids.keys()}"
        self._agree_on_files(ids.keys())
        fence = self.model.fence
        assert world["fences"] == ([[self.stage.instance_id, fence]] if fence else [])
        assert world["fenced_by"] == fence
        assert (world["locks"], world["books"]) == (0, 0)
        self._agree_on_operations(world)

    def _agree_on_row(self, shown: dict[str, Any], snapshot: Snapshot) -> None:
        found = {
            "name": shown["name"],
            "description": shown["description"],
            "status": shown["status"],
            "snapshots": self._disks(shown["snapshots"]),
            "temp": self._disks(shown["temp_snapshots"]),
            "failed": self._disks(shown["failed_snapshots"]),
            "fault": shown["fault"] and shown["fault"]["code"],
            "changed": shown["updated_at"] is not None,
            "instance": shown["instance_id"],
        }
        assert found == {
            "name": snapshot.name,
            "description": snapshot.description,
            "status": snapshot.status,
            "snapshots": snapshot.snapshots and {*snapshot.snapshots},
            "temp": snapshot.temp and {*snapshot.temp},
            "failed": snapshot.failed,
            "fault": snapshot.fault,
            "changed": True,
            "instance": self.stage.instance_id,
        }
        for volume_id, copy_id in (shown["failed_snapshots"] or {}).items():
            if snapshot.status != "error-deleting":
                assert copy_id == shown["snapshots"][volume_id]
        if snapshot.status == "available":
            # All disks of an instance that is off are cut at one instant.
            assert shown["consistency"]["level"] == "crash"

    def _agree_on_files(self, copy_ids: Any) -> None:
        disks = set(self.root_files("disks"))
        expected = {f"{name}.img" for name in SIZES}
        for copy_id in copy_ids:
            expected |= {f".stillframe/{copy_id}/data"}
        assert disks == expected
        # A kill in another thread's instant between the two names of a draft leaves it, for the janitor to remove.
        records = {name for name in self.root_files("state/local/copies") if not name.startswith(".")}
        assert {name.rpartition(".")[2] for name in records} == set(copy_ids)
        fences = self.root_files("state/local/fences")
        assert fences == ({self.stage.instance_id} if self.model.fence else set())

    def _agree_on_operations(self, world: dict[str, Any]) -> None:
        for operation in world["operations"]:
            assert operation["state"] in ("succeeded", "failed"), operation
            assert (operation["progress"] == 100) == (operation["state"] == "succeeded"), operation
        if world["operations"]:
            progress, last = world["progress"], world["operations"][-1]
            assert progress["progress"] == last["progress"]
            if last["state"] == "succeeded":
                assert set(progress["flow_details"].values()) == {"SUCCESS"}, progress
                assert progress["completed_tasks"].get("SnapshotDone") == "SUCCESS", progress
                assert progress["pending_tasks"] == {}, progress

    def root_files(self, folder: str) -> set[str]:
        top = self.stage.root / folder
        return {str(path.relative_to(top)) for path in top.rglob("*") if not path.is_dir()}

    def _content(self, copy_id: str) -> bytes:
        return (self.stage.root / "disks" / ".stillframe" / copy_id / "data").read_bytes()

    def _disk(self, volume_id: str) -> str:
        return next(name for name, known in self.stage.volume_ids.items() if known == volume_id)

    def _disks(self, named: dict[str, str] | None) -> set[str] | None:
        return None if named is None else {self._disk(volume_id) for volume_id in named}


def _restoring(kind: str, snapshot_id: str) -> dict[str, Any]:
    ways = {} if kind == "restore" else {kind: True}
    return {"vm-restore": {"instance_snapshot_id": snapshot_id, **ways}}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.close()


def test_any_story_ends_as_the_model_says(stage: Stage) -> None:
    Story.stage = stage
    run_state_machine_as_test(
        Story,
        settings=settings(
            max_examples=int(os.environ.get("STILLFRAME_STORIES", "10")),
            stateful_step_count=45,
            deadline=None,
            derandomize="CI" in os.environ,
            print_blob=True,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
        ),
    )
