"""What can be known before an operation is told before it, not after."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.cli.program import started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.program import Place


@contextmanager
def running(socket: Path, disk: Path) -> Iterator[None]:
    """A machine without an operating system: it reacts to no power button."""
    command = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-m", "16"]
    monitor = ["-qmp", f"unix:{socket},server=on,wait=off"]
    machine = subprocess.Popen([*command, *monitor, "-drive", f"file={disk},format=raw,if=virtio"])
    try:
        until = time.monotonic() + 180
        while not socket.exists():
            assert machine.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        yield
    finally:
        machine.kill()
        machine.wait()


def test_an_instance_that_nothing_can_start_is_told_before_it_is_shut_down(place: Place) -> None:
    place.configure(drivers__graceful_stop_seconds="3")
    disk, socket = place.disk("i", b"the root"), place.folder / "qmp"
    added = place.good("instance", "add", "i", "--disk", f"{disk},format=raw", "--qmp-socket", str(socket))
    assert "without --start-command" in added.err
    with started(place, "serve"):
        place.good("snapshot", "create", "s", "--instance", "i", "--wait")
        with running(socket, disk):
            looked_at = json.loads(place.run("doctor", "-f", "json").out)
            assert "declare start_command" in [finding["mend"] for finding in looked_at]
            restored = place.run("snapshot", "restore", "s", "--force", "--wait", "-f", "value", "-c", "status")
    assert (restored.code, restored.out) == (0, "available\n"), restored
    notice, *progress = restored.err.splitlines()
    assert notice == (
        "The instance is shut down for this and stays off: Instance 'i' has no start_command in its declaration; "
        "add one, or start it by hand."
    ), restored
    # While it is waited for.
    assert any("a guest that runs is asked to shut down first" in line for line in progress), restored


def test_a_folder_of_instances_that_cannot_be_read_is_not_an_empty_one(place: Place) -> None:
    (place.folder / "state").mkdir(mode=0o700)
    (place.folder / "state" / "instances").write_text("this is no folder")
    found = json.loads(place.run("doctor", "-f", "json").out)
    details = [finding["detail"] for finding in found if finding["check"] == "instances"]
    assert details == [f"{place.folder / 'state' / 'instances'} cannot be read: Not a directory"]
    with started(place, "serve"):
        listed = place.run("instance", "list")
    assert listed.code != 0
    assert "Reading the folder of the instances" in listed.err
