"""An operator's day: whatever breaks is seen by its alert within two scrapes, and mended as the runbook says.

The stack is started once. Each breakage leaves it well for the next one.
"""

from __future__ import annotations

import shutil
import subprocess
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from stillframe.drivers.files.images import Images
from stillframe.drivers.image_files.files import Files
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.qemu.declaration import Declaration, Declarations, Disk
from tests.conformance.worlds import machine
from tests.deploy.stack import CLAIM_SECONDS, DELETE_SECONDS, Stack, full_stack, moment
from tests.deploy.test_servers import certificate, needs_haproxy
from tests.deploy.watch import OVERDUE_SECONDS, wait
from tests.lab.speakers import ScriptedAgent, speaking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["certificate"]

# What a look at the database, the board or a held guest may be old (Readiness, HeldGuests), and a call that hangs has
# beyond the deadline of its operation until it counts (the engine's grace, and the pace of its overseer).
_FRESH: Final = 1.5
# How long the client library of Redis tries again until it says that nobody answers.
_TRIED: Final = 10.0
_GRACE: Final = 12.0


@needs_haproxy
@pytest.mark.lasts(230)
def test_an_operator_s_day(tmp_path: Path, certificate: Path) -> None:
    with full_stack(tmp_path, certificate) as stack:
        web = declared(stack, "web", tmp_path / "disks")
        slow = [declared(stack, f"slow{number}", stack.slow) for number in range(3)]
        nightly = [stack.create(one.id, "nightly") for one in (web, *slow)]
        assert [stack.settled(one)["status"] for one in nightly] == ["available"] * 4
        one_worker_dies(stack)
        all_workers_die(stack)
        with everybody_hangs(stack, nightly[1:]) as late:
            the_queue_is_stuck(stack, web)
            one_api_dies(stack)
            the_front_is_down(stack)
            stack.watch.seen("StillframeCallHangs", late, instance=stack.worker(0))
        the_calls_come_back(stack, nightly[1:])
        the_state_folder_is_full(stack)
        with a_guest_is_held(stack) as held:
            a_clock_is_wrong(stack, web)
            files_go_missing(stack)
            held()
        copies_get_lost(stack, nightly[0])
        a_restore_fails(stack, web, nightly[0])
        the_job_board_is_away(stack, web)
        the_database_is_away(stack)
        stack.watch.quiet()


def declared(stack: Stack, name: str, folder: Path, **more: Any) -> Declaration:
    """An instance with one disk in a folder."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.img"
    path.write_bytes(name.encode().ljust(1 << 20, b"."))
    disks = (Disk(name="root", path=path, format=Format.RAW),)
    made = Declaration(id=str(uuid.uuid4()), name=name, project_id="default", disks=disks, **more)
    Declarations(stack.place.folder / "state" / "instances").add(Files(), Images(), made)
    return made


def one_worker_dies(stack: Stack) -> None:
    stack.workers()[0].kill()
    since = moment()
    stack.watch.seen("StillframeProcessDown", since, instance=stack.worker(0))
    stack.play("StillframeProcessDown")
    stack.watch.gone("StillframeProcessDown")


def all_workers_die(stack: Stack) -> None:
    for worker in stack.workers():
        worker.kill()
    killed = moment()
    stack.watch.seen("StillframeNoWorker", killed + CLAIM_SECONDS)
    # The janitor goes round every second; its last round may have ended right then.
    stack.watch.seen("StillframeJobOverdue", killed + 1 + OVERDUE_SECONDS, name="janitor")
    assert "job 'janitor'" in stack.play("StillframeJobOverdue", last=1)
    # Those and the one before them.
    assert stack.play("StillframeNoWorker").count(" down ") == 4
    stack.watch.gone("StillframeNoWorker")
    stack.watch.gone("StillframeProcessDown")
    stack.watch.gone("StillframeJobOverdue")


@contextmanager
def everybody_hangs(stack: Stack, snapshots: list[str]) -> Iterator[float]:
    """All workers hang in a file system that does not answer; from when on they may be seen to."""
    subprocess.run(["fsfreeze", "--freeze", str(stack.slow)], check=True)
    try:
        for snapshot_id in snapshots:
            stack.ask("DELETE", f"/volume/v3/default/instance-snapshots/{snapshot_id}")
        yield moment() + DELETE_SECONDS + _GRACE
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(stack.slow)], check=True)


def the_queue_is_stuck(stack: Stack, web: Declaration) -> None:
    taken = 'max(stillframe_open_operations{action="delete"}) == 3 and max(stillframe_queue_depth) == 0'
    wait(lambda: stack.watch.query(taken), "all three are taken")
    waiting = stack.create(web.id, "waits")
    stack.watch.seen("StillframeQueueStuck", moment())
    assert "stillframe-worker" in stack.play("StillframeQueueStuck")
    stack.watch.gone("StillframeQueueStuck")
    assert stack.settled(waiting)["status"] == "available"


def one_api_dies(stack: Stack) -> None:
    stack.unit("stillframe-api").kill()
    since = moment()
    # The other one answers meanwhile.
    stack.ask("GET", "/volume/v3/default/instance-snapshots")
    stack.watch.seen("StillframeProcessDown", since, instance=stack.api)
    stack.play("StillframeProcessDown")
    stack.watch.gone("StillframeProcessDown")


def the_front_is_down(stack: Stack) -> None:
    stack.unit("haproxy").kill()
    stack.watch.seen("StillframeFrontDown", moment(), job="stillframe-front")
    stack.play("StillframeFrontDown")
    stack.watch.gone("StillframeFrontDown")


def the_calls_come_back(stack: Stack, snapshots: list[str]) -> None:
    stack.watch.gone("StillframeCallHangs")
    for snapshot_id in snapshots:
        shown = stack.settled(snapshot_id)
        assert shown["status"] == "error-deleting", shown
        assert snapshot_id in stack.play("StillframeCallHangs", SNAPSHOT=snapshot_id)
    left = stack.ask("GET", "/volume/v3/default/instance-snapshots?status=error-deleting")
    assert left["instance_snapshots"] == []


@contextmanager
def a_guest_is_held(stack: Stack) -> Iterator[Any]:
    """A guest's agent hangs at the thaw; what is yielded waits for the alert, and mends it."""
    folder = stack.place.folder
    monitor, talk, agent = folder / "qmp", folder / "agent", ScriptedAgent()
    agent.hangs = {"guest-fsfreeze-thaw"}
    with speaking(talk, agent.part):
        held = declared(stack, "held", folder / "disks", qmp_socket=monitor, guest_agent_socket=talk)
        guest = subprocess.Popen(machine(monitor, held.disks))
        try:
            wait(monitor.exists, "the guest's monitor is there")
            taken = stack.create(held.id, "frozen")

            def mend() -> None:
                assert stack.settled(taken)["fault"]["code"] == "guest-held"
                stack.watch.seen("StillframeGuestHeld", moment() + _FRESH)
                assert "guest-held" in stack.play("StillframeGuestHeld", SNAPSHOT=taken)
                agent.go_on()
                stack.watch.gone("StillframeGuestHeld")
                assert agent.frozen is False

            yield mend
        finally:
            agent.go_on()
            guest.kill()
            guest.wait()


def the_state_folder_is_full(stack: Stack) -> None:
    heap = stack.place.folder / "state" / "heap.dump"
    with heap.open("wb") as file:
        try:
            while True:
                file.write(b"." * 65536)
                file.flush()
        except OSError:
            pass
    stack.watch.seen("StillframeStateFolderFull", moment())
    shown = stack.play("StillframeStateFolderFull")
    assert ("100%" in shown, str(heap) in shown) == (True, True), shown
    heap.unlink()
    stack.watch.gone("StillframeStateFolderFull")


def a_clock_is_wrong(stack: Stack, web: Declaration) -> None:
    stack.clock.set(5 * 86400)
    since = moment()
    stack.watch.seen("StillframeClockWrong", since, instance=stack.worker(2))
    # Nothing is called late, whoever works on it.
    assert stack.settled(stack.create(web.id, "in-time"))["status"] == "available"
    age = f'max_over_time(stillframe_oldest_open_operation_age_seconds{{instance="{stack.worker(2)}"}}[1m])'
    assert stack.watch.value(f"max({age})") < 86400
    stack.play("StillframeClockWrong")
    stack.watch.gone("StillframeClockWrong")


def files_go_missing(stack: Stack) -> None:
    for name, label in (("policy.yaml", "policy"), ("htpasswd", "users")):
        path = stack.place.folder / name
        aside = path.rename(path.with_suffix(".aside"))
        stack.watch.seen("StillframeAccessFile", moment(), instance=stack.api, file=label)
        shown = stack.play("StillframeAccessFile")
        assert str(path) in shown, shown
        aside.rename(path)
        stack.watch.gone("StillframeAccessFile")


def copies_get_lost(stack: Stack, snapshot_id: str) -> None:
    (copy,) = stack.snapshot(snapshot_id)["snapshots"].values()
    data = stack.place.folder / "disks" / ".stillframe" / copy / "data"
    aside = shutil.move(data, stack.place.folder / "aside")
    # The janitor goes round when it does; from when on it has counted, any process tells.
    wait(lambda: "\nstillframe_copies_lost 1.0" in stack.told_by(stack.api), "the janitor has counted it")
    stack.watch.seen("StillframeCopiesLost", moment())
    shown = stack.play("StillframeCopiesLost")
    assert copy in shown, shown
    shutil.move(aside, data)
    stack.watch.gone("StillframeCopiesLost")


def a_restore_fails(stack: Stack, web: Declaration, snapshot_id: str) -> None:
    volume = web.volume_id(web.disks[0])
    obstacle = stack.place.folder / "disks" / ".stillframe" / f"{volume}.restoring"
    obstacle.mkdir()
    body = {"vm-restore": {"instance_snapshot_id": snapshot_id, "force": False}}
    stack.ask("POST", f"/compute/v2.1/default/servers/{web.id}/action", body)
    assert stack.settled(snapshot_id)["status"] == "restore-error"
    since = moment()
    stack.watch.seen("StillframeInstanceFenced", since)
    stack.watch.seen("StillframeOperationFailed", since, action="restore")
    shown = stack.play("StillframeInstanceFenced", last=1, SNAPSHOT=snapshot_id)
    assert "Is a directory" in shown, shown
    obstacle.rmdir()
    stack.play("StillframeInstanceFenced", first=1, SNAPSHOT=snapshot_id)
    stack.watch.gone("StillframeInstanceFenced")
    assert stack.snapshot(snapshot_id)["status"] == "available"
    stack.play("StillframeOperationFailed", SNAPSHOT=snapshot_id)
    stack.watch.gone("StillframeOperationFailed")


def the_job_board_is_away(stack: Stack, web: Declaration) -> None:
    stack.systemd.units["redis-server"].stop()
    since = moment() + _TRIED
    # The work goes on, and the API that takes this notices, too.
    assert stack.settled(stack.create(web.id, "without-a-board"))["status"] == "available"
    stack.watch.seen("StillframeJobBoardDown", since, instance=stack.worker(0))
    stack.play("StillframeJobBoardDown")
    stack.watch.gone("StillframeJobBoardDown")


def the_database_is_away(stack: Stack) -> None:
    stack.systemd.units["postgresql"].stop()
    since = moment() + _FRESH
    stack.watch.seen("StillframeDatabaseDown", since, instance=stack.api)
    stack.watch.seen("StillframeFrontDown", moment(), job="stillframe-front")
    stack.play("StillframeDatabaseDown")
    stack.watch.gone("StillframeDatabaseDown")
    stack.watch.gone("StillframeFrontDown")
    stack.ask("GET", "/volume/v3/default/instance-snapshots")
