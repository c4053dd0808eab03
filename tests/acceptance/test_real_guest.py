"""The whole service with a real guest under load: what is restored was on its disks at one instant.

The guest keeps an order between two disks and a file system with checksums on a third; see `tests/lab/guest`. Whenever
the service starts it, its start command first puts a copy of the disks aside, so that what a restore left can be judged
although the guest writes again at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, get_args

import pytest
import requests
import tomli_w

from tests.lab.filesystems import mounted
from tests.lab.guest.checks import FilesState, check_filesystem, check_order
from tests.lab.guest.disks import Disks, Format, make_disks
from tests.lab.guest.image import GuestUnavailableError, Image, build_image
from tests.lab.guest.machine import Guest, wait_for
from tests.lab.guest.monitor import ask_monitor

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.guest

PROJECT: Final = "acceptance"
SIZE: Final = 2 << 30
# Disks on file systems that share blocks between files, and on one that does not, where QEMU has to copy.
PLACES: Final = ("btrfs-raw", "xfs-raw", "xfs-qcow2", "ext4-raw", "ext4-qcow2")
SERVE: Final = """
import sys, logging, waitress
from stillframe.main import build
from stillframe.settings import load
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
logging.getLogger("stillframe.api").setLevel(logging.WARNING)
service = build(load([sys.argv[1]]))
service.start()
server = waitress.create_server(service.wsgi, host="127.0.0.1", port=0)
print(server.effective_port, flush=True)
server.run()
"""


@dataclass
class Stillframe:
    """The service as a process of its own, and a client that talks HTTP to it."""

    folder: Path
    process: subprocess.Popen[str] | None = None
    port: int = 0
    session: requests.Session = field(default_factory=requests.Session)

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "stillframe.conf"
        settings.write_text(
            f"[DEFAULT]\nstate_dir = {self.folder}\nauth_strategy = noauth\n[drivers]\ngraceful_stop_seconds = 20\n"
        )
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE, str(settings)], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline() or pytest.fail(self.log.read_text()))
        self.session.headers["X-Auth-Token"] = f"tester:{PROJECT}"

    def end(self, number: signal.Signals) -> None:
        if self.process is not None:
            assert self.process.stdout is not None
            self.process.send_signal(number)
            self.process.wait(60)
            self.process.stdout.close()
            self.process = None

    @property
    def log(self) -> Path:
        return self.folder / "service.log"

    def declare(self, guest: Guest, *, agent: bool) -> str:
        """Make the guest known to the service and return its instance's id."""
        instance_id = str(uuid.uuid4())
        declaration: dict[str, Any] = {
            "id": instance_id,
            "name": "guest",
            "project_id": PROJECT,
            "qmp_socket": str(guest.monitor_socket),
            "start_command": guest.command,
            "disks": [
                {"name": path.stem, "path": str(path), "format": path.suffix.removeprefix(".")}
                # The large one comes between those with an order, to give a guest that runs on time to break it.
                for path in (guest.disks.order_a, guest.disks.files, guest.disks.order_b)
            ],
        }
        if agent:
            declaration["guest_agent_socket"] = str(guest.agent_socket)
        folder = self.folder / "instances"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "guest.toml").write_text(tomli_w.dumps(declaration))
        return instance_id

    def request(self, method: str, path: str, body: Any = None, expected: int = 200) -> Any:
        url = path if path.startswith("http") else f"http://127.0.0.1:{self.port}{path}"
        reply = self.session.request(method, url, json=body, timeout=60)
        assert reply.status_code == expected, f"{method} {path}: {reply.status_code} {reply.text}"
        return reply.json() if reply.content else None

    def act(self, instance_id: str, body: dict[str, Any], expected: int) -> Any:
        return self.request("POST", f"/compute/v2.1/{PROJECT}/servers/{instance_id}/action", body, expected)

    def show(self, snapshot_id: str) -> dict[str, Any]:
        path = f"/volume/v3/{PROJECT}/instance-snapshots/{snapshot_id}"
        shown: dict[str, Any] = self.request("GET", path)["instance_snapshot"]
        return shown

    def begin_snapshot(self, instance_id: str, name: str) -> tuple[str, str]:
        """The new snapshot's id, and the address of its task."""
        made = self.act(instance_id, {"vm-snapshot": {"name": name}}, 200)["instance_snapshot"]
        return made["id"], made["task_uri"]

    def follow(self, task_uri: str, seconds: float = 120.0) -> None:
        """Return when the task is at 100 percent, having only ever gone forward."""
        seen = [0]

        def done() -> bool:
            details = self.request("GET", task_uri)["details"]
            seen.append(details["progress"])
            assert seen[-1] >= seen[-2]
            failed = {"FAILURE", "REVERTED"} & set(details["flow_details"].values())
            assert not failed, f"the task failed: {self.log.read_text()[-6000:]}"
            return seen[-1] == 100

        wait_for(done, seconds, lambda: f"the task stands at {seen[-1]} %: {self.log.read_text()[-3000:]}")

    def settled(self, snapshot_id: str) -> dict[str, Any]:
        """The snapshot when nothing works on it any more."""
        wait_for(
            lambda: not self.show(snapshot_id)["status"].endswith("ing"),
            60.0,
            lambda: f"{self.show(snapshot_id)} stays: {self.log.read_text()[-3000:]}",
        )
        return self.show(snapshot_id)


@dataclass(frozen=True)
class Taken:
    """A snapshot, and how far the guest's writers were at least before it and at most after it."""

    id: str
    before: tuple[int, int]
    after: tuple[int, int]


@dataclass
class Scene:
    """One guest, known to one service as one instance; `aside` is where its start command puts the disks' copies."""

    service: Stillframe
    guest: Guest
    instance_id: str
    aside: Path
    level: str

    def positions(self) -> tuple[int, int]:
        return self.guest.position("order"), self.guest.position("files")

    def take(self, name: str) -> Taken:
        before = self.positions()
        snapshot_id, task_uri = self.service.begin_snapshot(self.instance_id, name)
        self.service.follow(task_uri)
        self.assert_guest_is_free()
        shown = self.service.show(snapshot_id)
        assert shown["status"] == "available"
        assert shown["consistency"]["level"] == self.level, self.service.log.read_text()[-3000:]
        assert len(shown["snapshots"]) == 3
        return Taken(snapshot_id, before, self.positions())

    def assert_guest_is_free(self) -> None:
        """It is neither paused nor frozen, and both writers go on."""
        assert self.guest.status == "running"
        self.guest.wait_until_written()
        if self.guest.agent:
            assert self.guest.ask_agent("guest-fsfreeze-status") == "thawed"

    def restore(self, snapshot_id: str) -> tuple[int, FilesState]:
        """Restore while the guest runs, and return what the restored disks hold when they are good."""
        boots = self.guest.boots
        body = {"instance_snapshot_id": snapshot_id, "force": True}
        self.service.follow(self.service.act(self.instance_id, {"vm-restore": body}, 202)["task_uri"])
        shown = self.service.show(snapshot_id)
        assert (shown["status"], shown["temp_snapshots"], shown["failed_snapshots"]) == ("available", None, None)
        self.guest.wait_until_up(boots + 1)
        order, files = self.restored()
        assert f"order: starts from A={order} " in self.guest.console
        self.assert_guest_is_free()
        return order, files

    def restored(self) -> tuple[int, FilesState]:
        disks = Disks(*(self.aside / path.name for path in self.guest.disks.paths))
        order, _ = check_order(disks.order_a, disks.order_b)
        return order, check_filesystem(disks.files)

    def assert_restored_to(self, taken: Taken) -> tuple[int, FilesState]:
        order, files = self.restore(taken.id)
        # What a writer says may be one step behind what it has written, and it says so only once a second.
        assert taken.before[0] <= order <= taken.after[0]
        assert taken.before[1] <= files.last <= taken.after[1]
        assert files.frozen == (self.level == "filesystem")
        return order, files


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    try:
        return build_image(tmp_path_factory.mktemp("image"))
    except GuestUnavailableError as problem:
        pytest.skip(str(problem))


def fragment(path: Path) -> None:
    """Give the host a block of its own for every other hole of 4 KiB, so that it takes a while to share them all."""
    with path.open("r+b") as file:
        for offset in range(0, path.stat().st_size, 8192):
            if not any(os.pread(file.fileno(), 4096, offset)):
                os.pwrite(file.fileno(), bytes(4096), offset)


@contextmanager
def staged(image: Image, place: str, *, agent: bool = True) -> Iterator[Scene]:
    """A guest under load on that kind of file system and with that kind of image, and the service beside it."""
    kind, _, image_format = place.partition("-")
    # Sockets need short paths.
    with TemporaryDirectory(prefix="guest-") as name, mounted(Path(name), kind, SIZE) as disk_folder:
        disks = make_disks(disk_folder, next(one for one in get_args(Format) if one == image_format))
        if image_format == "raw":
            fragment(disks.files)
        aside = Path(name, "aside")
        copy = f"rm -rf {aside} && mkdir {aside} && cp --sparse=always {' '.join(map(str, disks.paths))} {aside}"
        guest = Guest(image, Path(name, "run"), disks, prefix=("sh", "-c", f'{copy} && exec "$@"', "start"))
        service = Stillframe(Path(name, "state"))
        try:
            service.start()
            instance_id = service.declare(guest, agent=agent)
            guest.start()
            guest.wait_until_written()
            yield Scene(service, guest, instance_id, aside, "filesystem" if agent else "crash")
        finally:
            service.end(signal.SIGKILL)
            guest.kill()


@pytest.mark.parametrize("place", PLACES)
def test_every_snapshot_of_a_busy_guest_can_be_restored(image: Image, place: str) -> None:
    with staged(image, place) as scene:
        oldest, middle, newest = (scene.take(name) for name in ("oldest", "middle", "newest"))
        found = {taken.id: scene.assert_restored_to(taken) for taken in (oldest, newest, middle)}
        assert found[oldest.id][0] < found[middle.id][0] < found[newest.id][0]
        # The guest has written since to what it was given, and none of that is in the snapshot.
        assert scene.assert_restored_to(oldest) == found[oldest.id]
        later = scene.take("later")
        scene.assert_restored_to(newest)
        scene.assert_restored_to(later)


@pytest.mark.parametrize("place", ["xfs-raw", "ext4-qcow2"])
def test_a_guest_without_an_agent_is_cut_as_by_a_power_failure(image: Image, place: str) -> None:
    with staged(image, place, agent=False) as scene:
        first, second = scene.take("first"), scene.take("second")
        scene.assert_restored_to(first)
        scene.assert_restored_to(second)
        assert "guest: shuts down" in scene.guest.console


def test_an_instance_that_was_off_stays_off(image: Image) -> None:
    with staged(image, "btrfs-qcow2") as scene:
        taken = scene.take("running")
        scene.guest.shut_down()
        last = check_order(scene.guest.disks.order_a, scene.guest.disks.order_b)
        assert last[0] > taken.before[0]
        body = {"vm-restore": {"instance_snapshot_id": taken.id}}
        scene.service.follow(scene.service.act(scene.instance_id, body, 202)["task_uri"])
        assert not scene.guest.running
        order, _ = check_order(scene.guest.disks.order_a, scene.guest.disks.order_b)
        assert taken.before[0] <= order <= taken.after[0]
        assert check_filesystem(scene.guest.disks.files).frozen


def test_a_guest_that_freezes_only_after_everybody_gave_up_is_thawed(image: Image) -> None:
    """Its disk takes nothing any more, so that the freeze is still writing when the service waits no longer."""
    with staged(image, "btrfs-raw") as scene:
        throttle(scene.guest, scene.guest.disks.files, 16)
        snapshot_id, _ = scene.service.begin_snapshot(scene.instance_id, "late")
        wait_for(
            lambda: scene.service.show(snapshot_id)["status"] != "creating",
            240.0,
            lambda: f"it is never given up: {scene.service.log.read_text()[-3000:]}",
        )
        shown = scene.service.show(snapshot_id)
        assert (shown["status"], shown["fault"]["code"]) == ("error", "guest-held")
        assert shown["guest_may_be_held"]
        throttle(scene.guest, scene.guest.disks.files, 0)
        wait_for(
            lambda: scene.service.show(snapshot_id)["guest_may_be_held"] is False,
            120.0,
            lambda: f"nobody lets it go: {scene.service.log.read_text()[-3000:]}",
        )
        scene.assert_guest_is_free()
        scene.take("afterwards")


def throttle(guest: Guest, disk: Path, bytes_per_second: int) -> None:
    """Let a disk of the guest take so much at most; 0: as much as there is."""
    devices = ask_monitor(guest.control_socket, "query-block")
    (device,) = (one["qdev"] for one in devices if str(disk) in one.get("inserted", {}).get("file", ""))
    rates = {"bps": bytes_per_second, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0}
    ask_monitor(guest.control_socket, "block_set_io_throttle", id=device, **rates)


@pytest.mark.crash
@pytest.mark.parametrize("place", ["btrfs-raw", "ext4-raw"])
def test_a_killed_service_leaves_no_guest_paused_or_frozen(image: Image, place: str) -> None:
    """It is killed a little later each time, so that it dies before, during and after the cut."""
    with staged(image, place) as scene:
        good = []
        for step in range(6):
            snapshot_id, _ = scene.service.begin_snapshot(scene.instance_id, f"killed {step}")
            time.sleep(0.1 * step)
            good += [snapshot_id] if killed_and_started(scene, snapshot_id) == "available" else []
        for snapshot_id in good[-2:]:
            scene.restore(snapshot_id)


@pytest.mark.crash
@pytest.mark.parametrize("place", ["btrfs-raw", "xfs-raw"])
def test_a_service_killed_while_it_holds_the_guest_lets_it_go(image: Image, place: str) -> None:
    with staged(image, place) as scene:
        snapshot_id, _ = scene.service.begin_snapshot(scene.instance_id, "killed")
        wait_for(lambda: scene.guest.status == "paused", 20.0, lambda: "the guest is never held", every=0.001)
        if killed_and_started(scene, snapshot_id) == "available":
            scene.restore(snapshot_id)
        scene.assert_restored_to(scene.take("afterwards"))


def killed_and_started(scene: Scene, snapshot_id: str) -> str:
    """Kill the service, see the guest let go without it, start it again, and return the snapshot's status."""
    scene.service.end(signal.SIGKILL)
    killed = asked = time.monotonic()
    # An answer says how it was at the question: QEMU answers late when its disks are slow.
    while scene.guest.status != "running":
        assert asked - killed < 2.0, f"the guest is still paused {asked - killed:.1f} s after the service's end"
        asked = time.monotonic()
    # The agent serves one client at a time, and whoever thaws the guest needs it; so the writers are asked first.
    scene.assert_guest_is_free()
    scene.service.start()
    status = str(scene.service.settled(snapshot_id)["status"])
    assert status in {"available", "error"}
    scene.assert_guest_is_free()
    return status
