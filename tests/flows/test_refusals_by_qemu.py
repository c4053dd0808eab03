"""What a running QEMU refuses: the snapshot fails at once and in its words, and nothing of ours is left in it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from falcon.testing import TestClient

from stillframe import main
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.platform import Drivers
from stillframe.settings import load
from stillframe.testing.world import MIB
from tests.conformance.worlds import LocalWorld, ask
from tests.harness.faults import Faults, wait_until
from tests.harness.surround import surround
from tests.lab.filesystems import mounted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Story:
    """The whole service over a machine on a file system that shares no blocks, so that QEMU has to copy."""

    def __init__(self, folder: Path, state: Path, form: Format) -> None:
        self.local, self.faults = LocalWorld(folder, form), Faults()
        self.instance = self.local.add((8 * MIB, 8 * MIB))
        overrides: list[tuple[str | None, str, object]] = [
            (None, "state_dir", str(state)),
            (None, "auth_strategy", "noauth"),
            ("database", "sqlite_synchronous", "NORMAL"),
        ]
        settings = load(overrides=overrides)
        drivers = Drivers(surround(self.local.compute, self.faults.around), self.local.storage)
        self.service = main.build(settings, drivers=drivers)
        self.service.start()

    def close(self) -> None:
        self.service.stop()
        self.local.close()

    def ask(self, method: str, path: str, body: object = None) -> Any:
        wsgi = self.service.wsgi
        # The client tells WSGI from ASGI by the signature, which a chain of middleware does not show.
        client = TestClient(
            lambda environ, start_response: wsgi(environ, start_response),  # noqa: PLW0108
            headers={"Host": "localhost"},
        )
        return client.simulate_request(method, path, json=body)

    def start(self, *more: str) -> None:
        declaration = self.local.declarations.instance(self.instance.id)
        self.local.qemu.launch([*declaration.start_command, *more], self.local.folder / "machine.log")
        wait_until(lambda: self.local.second_monitor(self.instance.id).exists(), "QEMU did not start")

    def monitor(self, command: str, **arguments: Any) -> Any:
        return ask(self.local.second_monitor(self.instance.id), command, arguments)

    @property
    def action(self) -> str:
        return f"/compute/v2.1/project/servers/{self.instance.id}/action"

    def restore(self, snapshot_id: str) -> Any:
        return self.ask("POST", self.action, {"vm-restore": {"instance_snapshot_id": snapshot_id, "force": True}})

    def snapshot(self) -> dict[str, Any]:
        """A snapshot, taken to its end, and how often it was tried."""
        reply = self.ask("POST", self.action, {"vm-snapshot": {"name": "kept"}})
        assert reply.status_code == 200, reply.text
        snapshot_id = reply.json["instance_snapshot"]["id"]
        wait_until(lambda: self.show(snapshot_id)["status"] != "creating", "it is still being created")
        return self.show(snapshot_id)

    def show(self, snapshot_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"/volume/v3/project/instance-snapshots/{snapshot_id}").json
        return dict(found["instance_snapshot"])

    def left(self) -> tuple[list[Any], list[Any], list[Any]]:
        """Jobs, nodes and copies of ours."""
        jobs = [one["id"] for one in self.monitor("query-jobs")]
        nodes = [one["node-name"] for one in self.monitor("query-named-block-nodes")]
        return (
            [one for one in jobs if one.startswith("sf")],
            [one for one in nodes if one.startswith("sf")],
            [*self.local.storage.find(None)],
        )


@contextmanager
def told(folder: Path, state: Path, form: Format) -> Iterator[Story]:
    story = Story(folder, state, form)
    try:
        yield story
    finally:
        story.close()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with mounted(tmp_path_factory.mktemp("plain"), "ext4", 512 * MIB) as folder:
        yield folder


@pytest.fixture(params=list(Format))
def story(request: pytest.FixtureRequest, plain: Path, tmp_path: Path) -> Iterator[Story]:
    with told(plain / tmp_path.name, tmp_path, request.param) as story:
        yield story


def busy_with(story: Story, command: str, node: str) -> None:
    """A job of somebody else's on one of the disks, which goes on for as long as it is not cancelled."""
    story.monitor("blockdev-add", driver="null-co", **{"node-name": "theirs", "size": 8 * MIB})
    story.monitor(command, **{"job-id": "job", "device": node, "target": "theirs", "sync": "full", "speed": 1})
    assert [one["id"] for one in story.monitor("query-jobs")] == ["job"]


@pytest.mark.parametrize("command", ["blockdev-mirror", "blockdev-backup"])
def test_a_job_of_somebody_else_on_a_disk_fails_the_snapshot_at_once(story: Story, command: str) -> None:
    story.start()

    def begun_at_the_last_moment(method: Any, args: Any, kwargs: Any) -> Any:
        busy_with(story, command, "disk1")
        return method(*args, **kwargs)

    story.faults.put("quiesced", begun_at_the_last_moment)
    shown = story.snapshot()
    story.faults.mend()
    assert (shown["status"], shown["fault"]["code"]) == ("error", "backend-error")
    assert "in use by block job" in shown["fault"]["message"]
    assert "/" not in shown["fault"]["message"]
    assert story.faults.calls.count("quiesced") == 1
    assert story.left() == ([], [], [])
    assert story.monitor("query-status")["status"] == "running"
    # What is there at the request is seen there.
    reply = story.ask("POST", story.action, {"vm-snapshot": {"name": "refused"}})
    assert reply.status_code == 400
    assert "job of somebody else" in reply.json["badRequest"]["message"]
    # Theirs goes on, and when it is over a snapshot can be taken.
    assert [one["id"] for one in story.monitor("query-jobs")] == ["job"]
    story.monitor("job-cancel", id="job")
    wait_until(lambda: not story.monitor("query-jobs"), "the other job never ended")
    assert story.snapshot()["status"] == "available"


def test_a_machine_that_waits_for_a_migration_refuses_the_snapshot_at_the_request(story: Story) -> None:
    story.start("-incoming", "defer")
    reply = story.ask("POST", story.action, {"vm-snapshot": {"name": "refused"}})
    assert reply.status_code == 400, reply.text
    assert "migrated into it" in reply.json["badRequest"]["message"]
    assert "/" not in reply.json["badRequest"]["message"]
    assert "quiesced" not in story.faults.calls
    assert story.left() == ([], [], [])
    assert story.monitor("query-status")["status"] == "inmigrate"
    # The service does not end what it takes for another's to end.
    story.monitor("quit")
    wait_until(lambda: not story.local.second_monitor(story.instance.id).exists(), "QEMU did not end")


def cover(story: Story) -> None:
    """Somebody covers a disk by an overlay, as backup programs do."""
    file = str(story.local.folder / "over")
    names = {"node-name": "disk0", "snapshot-node-name": "over"}
    story.monitor("blockdev-snapshot-sync", **names, **{"snapshot-file": file, "format": "qcow2"})


def test_an_overlay_of_somebody_else_refuses_the_restore_at_the_request(story: Story) -> None:
    story.start()
    kept = story.snapshot()
    cover(story)
    reply = story.restore(kept["id"])
    assert reply.status_code == 400
    assert "overlay" in reply.json["badRequest"]["message"]
    assert story.monitor("query-status")["status"] == "running"


def test_an_overlay_that_comes_after_the_request_leaves_the_guest_running_over_it(story: Story) -> None:
    story.start()
    kept = story.snapshot()

    def covered_meanwhile(method: Any, args: Any, kwargs: Any) -> Any:
        cover(story)
        return method(*args, **kwargs)

    story.faults.put("fence", covered_meanwhile)
    before = [path.read_bytes() for path in sorted(story.local.disks.iterdir()) if path.is_file()]
    assert story.restore(kept["id"]).status_code == 202
    wait_until(lambda: story.show(kept["id"])["status"] != "restoring", "it is still being restored")
    shown = story.show(kept["id"])
    assert (shown["status"], shown["temp_snapshots"]) == ("available", None)
    assert "overlay" in shown["fault"]["message"]
    assert "stop" not in story.faults.calls
    assert story.monitor("query-status")["status"] == "running"
    assert [path.read_bytes() for path in sorted(story.local.disks.iterdir()) if path.is_file()] == before
