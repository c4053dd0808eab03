"""Image files under a running QEMU: pauses, the watchdog, backups while the guest writes, locks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tomli_w

from stillframe.domain.errors import BackendError, Damaged, NotSupported, Refused
from stillframe.domain.instance import Instance, PowerState
from stillframe.domain.snapshot import ConsistencyLevel
from stillframe.drivers.image_files.files import Files
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.qemu.declaration import Disk
from stillframe.drivers.qemu.guard import Guard, Order
from stillframe.testing.world import MIB, SIZE, a_call, pattern
from tests.conformance.worlds import Agent, LocalWorld, Stopped, ask, content, machine, run, stopping


def running(world: LocalWorld, sizes: tuple[int, ...] = (SIZE,)) -> Instance:
    instance = world.add(sizes)
    world.compute.start(a_call(), instance.id)
    return world.compute.get_instance(instance.id)


def run_state(world: LocalWorld, instance: Instance) -> str:
    return str(ask(world.second_monitor(instance.id), "query-status")["status"])


def leftovers(world: LocalWorld, instance: Instance) -> list[str]:
    """Jobs and nodes of ours in the QEMU process."""
    monitor = world.second_monitor(instance.id)
    jobs = [one["id"] for one in ask(monitor, "query-jobs")]
    nodes = [one["node-name"] for one in ask(monitor, "query-named-block-nodes")]
    return jobs + [one for one in nodes if one.startswith("sf")]


def eventually(reached: Callable[[], bool], seconds: float) -> float:
    """How long it took; fails if it took longer than it may."""
    start = time.monotonic()
    while not reached():
        assert time.monotonic() - start < seconds
        time.sleep(0.02)
    return time.monotonic() - start


class TestPause:
    def test_the_guest_is_paused_inside_and_only_inside(self, local: LocalWorld) -> None:
        instance = running(local)
        with local.compute.quiesced(a_call(), instance.id) as stillness:
            assert stillness.level is ConsistencyLevel.CRASH
            assert run_state(local, instance) == "paused"
        assert run_state(local, instance) == "running"
        assert list((local.state / "quiesced").iterdir()) == []

    def test_a_guest_paused_by_its_user_stays_paused(self, local: LocalWorld) -> None:
        instance = running(local)
        local.monitor(instance.id, "stop")
        local.snapshot(local.compute.get_instance(instance.id))
        assert local.compute.get_instance(instance.id).power_state is PowerState.PAUSED

    def test_the_end_of_qemu_meanwhile_spoils_the_cut(self, local: LocalWorld) -> None:
        instance = running(local)
        with pytest.raises(BackendError, match="stay"), local.compute.quiesced(a_call(), instance.id):
            kill_machine(local, instance)
        assert local.compute.get_instance(instance.id).power_state is PowerState.SHUTOFF
        assert list((local.state / "quiesced").iterdir()) == []
        local.compute.start(a_call(), instance.id)


def kill_machine(world: LocalWorld, instance: Instance) -> None:
    """The process ends without a word, as if it had been killed."""
    monitor = world.declarations.instance(instance.id).qmp_socket
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"unix:{monitor}," in entry.read_text():
                os.kill(int(entry.parent.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue
    eventually(lambda: world.compute.get_instance(instance.id).power_state is PowerState.SHUTOFF, 5)


PAUSER = """
import sys, time
from pathlib import Path
from stillframe.drivers.call import Call
from stillframe.drivers.qemu.compute import QemuCompute
from stillframe.drivers.image_files.files import Files
from stillframe.drivers.qemu.guard import Guard
from stillframe.drivers.qemu.commands import Qemu
guard = Guard()
compute = QemuCompute(Path(sys.argv[1]), Path(sys.argv[2]), Files(), Qemu(), guard=guard)
with compute.quiesced(Call("o", "r", lambda: None, lambda done, total: None), sys.argv[3]) as stillness:
    print(guard.process_id, stillness.level, flush=True)
    time.sleep(60)
"""


class TestWatchdog:
    @staticmethod
    def pauser(world: LocalWorld, instance: Instance) -> tuple[subprocess.Popen[str], int]:
        """Another process that holds the instance still, and its watchdog's process id."""
        process = subprocess.Popen(
            (sys.executable, "-c", PAUSER, str(world.instances), str(world.state), instance.id),
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )
        assert process.stdout is not None
        watchdog = int(process.stdout.readline().split()[0])
        process.stdout.close()
        assert run_state(world, instance) == "paused"
        return process, watchdog

    def test_a_guest_runs_again_by_itself_after_the_death_of_its_pauser(self, local: LocalWorld) -> None:
        instance = running(local)
        process, watchdog = self.pauser(local, instance)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(watchdog, number)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        eventually(lambda: run_state(local, instance) == "running", 30)
        eventually(lambda: list((local.state / "quiesced").iterdir()) == [], 30)
        eventually(lambda: not Path(f"/proc/{watchdog}/fd/0").exists(), 30)

    def test_what_the_watchdog_did_not_let_go_is_released_later(self, local: LocalWorld) -> None:
        instance = running(local)
        process, watchdog = self.pauser(local, instance)
        os.kill(watchdog, signal.SIGKILL)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.3)
        assert run_state(local, instance) == "paused"
        for _ in range(2):
            local.compute.release(instance.id)
            assert run_state(local, instance) == "running"

    def test_a_user_s_pause_is_not_released(self, local: LocalWorld) -> None:
        instance = running(local)
        local.snapshot(instance)
        local.monitor(instance.id, "stop")
        local.compute.release(instance.id)
        assert run_state(local, instance) == "paused"

    def test_a_watchdog_that_was_killed_is_replaced_before_the_next_pause(self, local: LocalWorld) -> None:
        instance = running(local)
        local.snapshot(instance)
        first = local.guard.process_id
        assert first is not None
        os.kill(first, signal.SIGKILL)
        with local.compute.quiesced(a_call(), instance.id):
            assert local.guard.process_id not in (None, first)

    def test_the_watchdog_answers_its_first_use_before_it_is_given_up(self, tmp_path: Path) -> None:
        guard = Guard()
        start = time.monotonic()
        guard.arm(Order(tmp_path / "none", None, tmp_path / "mark", "token", None, start + 600, 600))
        taken = time.monotonic() - start
        guard.disarm("token")
        guard.close()
        assert taken < 5


class TestAgent:
    @pytest.fixture(params=[False, True], ids=["willing", "unwilling"])
    def agent(self, request: pytest.FixtureRequest, plain: LocalWorld) -> Iterator[Agent]:
        agent = Agent(plain.sockets / "agent", deaf=request.param)
        yield agent
        agent.close()

    def test_the_level_says_whether_the_agent_froze(self, plain: LocalWorld, agent: Agent) -> None:
        path = plain.disks / "disk"
        run("qemu-img", "create", "-q", "-f", plain.form, str(path), str(SIZE))
        disk = Disk(name="root", path=path, format=plain.form)
        instance = plain.declare("vm", [disk], agent=plain.sockets / "agent")
        plain.compute.start(a_call(), instance.id)
        with plain.compute.quiesced(a_call(), instance.id) as stillness:
            assert agent.heard == ["guest-fsfreeze-freeze"]
        # What it refused nobody has to undo.
        thaws = [] if agent.deaf else ["guest-fsfreeze-thaw"]
        assert agent.heard == ["guest-fsfreeze-freeze", *thaws]
        assert stillness.level is (ConsistencyLevel.CRASH if agent.deaf else ConsistencyLevel.FILESYSTEM)
        agent.heard.clear()
        process, _ = TestWatchdog.pauser(plain, instance)
        process.kill()
        process.wait()
        eventually(lambda: run_state(plain, instance) == "running", 2)
        eventually(lambda: agent.heard == ["guest-fsfreeze-freeze", *thaws], 2)


class TestBackup:
    """Copies of a running instance on a file system that cannot share blocks."""

    def test_a_copy_holds_the_instant_though_the_guest_goes_on_writing(self, plain: LocalWorld) -> None:
        size = 48 * MIB
        instance = running(plain, (size, size))
        for number, volume_id in enumerate(instance.volume_ids):
            plain.write(volume_id, 0, pattern(number, size))
        with plain.compute.quiesced(a_call(), instance.id):
            cut = plain.storage.cut(a_call(), instance, plain.names(instance, "s"))
        assert cut.simultaneous
        for volume_id in instance.volume_ids:
            plain.write(volume_id, 0, pattern(9, size))
        for number, one in enumerate(cut.snapshots):
            plain.storage.complete(a_call(), one.reference)
            copied = content(plain.disks / ".stillframe" / one.id / "data", plain.form, plain.folder)
            assert copied == pattern(number, size)
        assert leftovers(plain, instance) == []
        assert plain.read(instance.volume_ids[0]) == pattern(9, size)

    def test_holes_stay_holes(self, plain: LocalWorld) -> None:
        instance = running(plain, (200 * MIB,))
        plain.write(instance.volume_ids[0], 50 * MIB, pattern(1, MIB))
        copy = plain.snapshot(instance)[0]
        assert (plain.disks / ".stillframe" / copy.id / "data").stat().st_blocks * 512 < 4 * MIB

    def test_a_second_cut_replaces_the_running_job(self, plain: LocalWorld) -> None:
        instance = running(plain)
        plain.write(instance.volume_ids[0], 0, pattern(1))
        plain.storage.cut(a_call(), instance, plain.names(instance, "s"))
        plain.write(instance.volume_ids[0], 0, pattern(2))
        copy = plain.snapshot(instance, "s")[0]
        plain.compute.stop(a_call(), instance.id, 0)
        plain.write(instance.volume_ids[0], 0, pattern(3))
        plain.storage.restore(a_call(), instance, instance.volume_ids[0], copy.id)
        assert plain.read(instance.volume_ids[0]) == pattern(2)

    def test_a_deleted_cut_leaves_neither_job_nor_node(self, plain: LocalWorld) -> None:
        instance = running(plain, (64 * MIB,))
        cut = plain.storage.cut(a_call(), instance, plain.names(instance, "s"))
        plain.storage.delete(a_call(), cut.snapshots[0].reference)
        assert leftovers(plain, instance) == []
        assert list((plain.disks / ".stillframe").iterdir()) == []

    def test_a_copy_whose_qemu_ended_too_early_is_damaged_and_can_be_deleted(self, plain: LocalWorld) -> None:
        instance = running(plain)
        cut = plain.storage.cut(a_call(), instance, plain.names(instance, "s"))
        kill_machine(plain, instance)
        with pytest.raises(Damaged, match="again"):
            plain.storage.complete(a_call(), cut.snapshots[0].reference)
        plain.storage.delete(a_call(), cut.snapshots[0].reference)
        assert plain.storage.find(None) == []

    def test_a_stop_anywhere_in_cut_or_completion_is_made_good_by_another_attempt(self, plain: LocalWorld) -> None:
        instance = running(plain, (SIZE, SIZE))

        def attempt() -> None:
            cut = plain.storage.cut(a_call(), instance, plain.names(instance, "s"))
            for one in cut.snapshots:
                plain.storage.complete(a_call(), one.reference)

        points = 0
        for at in range(200):
            plain.use(*stopping(at))
            try:
                attempt()
            except Stopped:
                plain.use(Files())
            else:
                break
            points += 1
            plain.write(instance.volume_ids[1], 0, pattern(points))
            made = plain.snapshot(instance, "s")
            copied = content(plain.disks / ".stillframe" / made[1].id / "data", plain.form, plain.folder)
            assert copied == pattern(points)
            assert leftovers(plain, instance) == []
            for one in made:
                plain.storage.delete(a_call(), one.reference)
        plain.use(Files())
        assert points > 20


class TestLocks:
    @staticmethod
    def unmonitored(world: LocalWorld, instance: Instance) -> subprocess.Popen[bytes]:
        """The instance's machine, started by hand and without the monitor that was declared."""
        disks = world.declarations.instance(instance.id).disks
        process = subprocess.Popen(machine(world.sockets / "other", disks))
        eventually(lambda: world.compute.get_instance(instance.id).power_state is PowerState.ACTIVE, 10)
        return process

    def test_an_image_that_is_open_elsewhere_is_not_restored(self, local: LocalWorld) -> None:
        instance = local.add()
        copy = local.snapshot(instance)[0]
        process = self.unmonitored(local, instance)
        try:
            with pytest.raises(Refused, match="open for writing"):
                local.storage.restore(a_call(), instance, instance.volume_ids[0], copy.id)
            with pytest.raises(Refused, match="qmp_socket"):
                local.compute.outlook(instance.id)
            with pytest.raises(Refused, match="qmp_socket"), local.compute.quiesced(a_call(), instance.id):
                pytest.fail("it is not held still")
        finally:
            process.kill()
            process.wait()

    def test_a_machine_without_its_monitor_is_not_copied_where_blocks_cannot_be_shared(self, plain: LocalWorld) -> None:
        instance = plain.add()
        process = self.unmonitored(plain, instance)
        try:
            with pytest.raises(Refused, match="qmp_socket"):
                plain.storage.check_cut(instance, instance.volume_ids)
        finally:
            process.kill()
            process.wait()

    def test_a_disk_covered_by_an_overlay_is_not_cut(self, local: LocalWorld) -> None:
        instance = running(local)
        monitor = local.second_monitor(instance.id)
        overlay = {"node-name": "disk0", "snapshot-file": str(local.disks / "over"), "format": "qcow2"}
        ask(monitor, "blockdev-snapshot-sync", {**overlay, "snapshot-node-name": "over"})
        with pytest.raises(Refused, match="overlay"):
            local.storage.check_cut(instance, instance.volume_ids)

    def test_a_file_that_took_the_disk_s_place_meanwhile_is_neither_cut_nor_replaced(self, local: LocalWorld) -> None:
        instance = running(local)
        copy = local.snapshot(instance)[0]
        path = local.path(instance.volume_ids[0])
        open_in_qemu = path.rename(local.disks / "moved-away")
        shutil.copy(open_in_qemu, path)
        with pytest.raises(Refused, match="does not have this file open"):
            local.storage.check_cut(instance, instance.volume_ids)
        # A swap since the check is seen too.
        with pytest.raises(Refused, match="does not have this file open"):
            local.storage.cut(a_call(), instance, local.names(instance))
        with pytest.raises(Refused, match="does not have this file open"):
            local.storage.check_restore(instance, {instance.volume_ids[0]: copy.id})
        # As the message says.
        open_in_qemu.rename(path)
        assert local.snapshot(instance)[0].ready

    def test_a_monitor_of_another_instance_switches_nothing_off(self, plain: LocalWorld) -> None:
        other, instance = running(plain), plain.add()
        declared = plain.instances / f"{instance.name}.toml"
        declaration = plain.declarations.instance(instance.id)
        sockets = {"qmp_socket": plain.declarations.instance(other.id).qmp_socket}
        mistaken = declaration.model_copy(update=sockets)
        declared.write_text(tomli_w.dumps(mistaken.model_dump(mode="json", exclude_none=True)))
        with pytest.raises(Refused, match="none of its disks"):
            plain.compute.stop(a_call(), instance.id, 0)
        assert plain.compute.get_instance(other.id).power_state is PowerState.ACTIVE
        with pytest.raises(Refused):
            plain.storage.check_cut(instance, instance.volume_ids)
        declared.unlink()


class TestStart:
    def test_a_command_that_fails_says_where_its_words_are(self, plain: LocalWorld) -> None:
        instance = plain.add()
        path = plain.instances / f"{instance.name}.toml"
        lines = path.read_text().replace('"qemu-system-x86_64"', '"/bin/false"')
        path.write_text(lines)
        with pytest.raises(BackendError, match="see "):
            plain.compute.start(a_call(), instance.id)

    def test_an_instance_without_a_command_is_not_started(self, plain: LocalWorld) -> None:
        path = plain.disks / "disk"
        path.write_bytes(bytes(MIB))
        declared = plain.instances / "bare.toml"
        declared.write_text(
            f'id = "00000000-0000-4000-8000-000000000001"\nname = "bare"\nproject_id = "p"\n'
            f'[[disks]]\nname = "root"\npath = "{path}"\nformat = "{Format.RAW}"\n'
        )
        with pytest.raises(NotSupported):
            plain.compute.start(a_call(), "00000000-0000-4000-8000-000000000001")
