"""Image files made by somebody who means harm, in a running service: they get nothing, and nobody else waits."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
import time
import tracemalloc
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from stillframe.domain.errors import StillframeError
from stillframe.drivers.files.images import Images
from stillframe.drivers.image_files import blocks
from stillframe.drivers.image_files.formats import Format
from tests.cli.program import Place, Process, started
from tests.conformance.worlds import run

MIB = 1 << 20
PATIENCE = 30.0
#: What the service may need more for all of these images together.
GROWTH = 96 * MIB


class Service:
    """A served place whose instances are declared past everything that `instance add` looks at."""

    def __init__(self, place: Place, process: Process) -> None:
        self.place = place
        self.pid = process.process.pid
        self.log = process.log
        self.folder = place.folder / "disks"
        self.folder.mkdir()
        self.instances = place.folder / "state" / "instances"
        self.instances.mkdir(exist_ok=True)

    def declare(self, name: str, path: Path, form: str = "qcow2") -> str:
        instance_id = str(uuid.uuid4())
        (self.instances / f"{name}.toml").write_text(
            f'id = "{instance_id}"\nname = "{name}"\nproject_id = "default"\n'
            f'[[disks]]\nname = "root"\npath = "{path}"\nformat = "{form}"\n'
        )
        return instance_id

    def get(self, path: str) -> requests.Response:
        return requests.get(f"{self.place.variables['STILLFRAME_ENDPOINT']}{path}", timeout=PATIENCE)

    def snapshot(self, instance_id: str) -> requests.Response:
        url = f"{self.place.variables['STILLFRAME_ENDPOINT']}/compute/v2.1/default/servers/{instance_id}/action"
        return requests.post(url, json={"vm-snapshot": {"name": "s"}}, timeout=PATIENCE)

    def volumes(self) -> dict[str, str]:
        """Status by name."""
        reply = self.get("/volume/v3/default/volumes/detail")
        assert reply.status_code == 200, reply.text
        return {one["name"]: one["status"] for one in reply.json()["volumes"]}

    def memory(self) -> int:
        """The most that the service ever had in memory, in bytes."""
        told = Path(f"/proc/{self.pid}/status").read_text()
        return int(told.split("VmHWM:")[1].split()[0]) << 10

    def refused(self, instance_id: str) -> str:
        reply = self.snapshot(instance_id)
        assert reply.status_code == 400, reply.text
        message = str(reply.json()["badRequest"]["message"])
        assert str(self.place.folder) not in message
        assert "/etc" not in message
        return message


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    place = Place(tmp_path_factory.mktemp("images"))
    place.configure(auth_strategy="noauth")
    with started(place, "serve") as process:
        found = Service(place, process)
        good = found.folder / "good"
        run("qemu-img", "create", "-q", "-f", "qcow2", str(good), "1M")
        found.declare("good", good)
        yield found


def image(path: Path, *options: str) -> Path:
    run("qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), "1M")
    return path


def patched(path: Path, offset: int, value: bytes) -> Path:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(value)
    return path


def test_hostile_headers_cost_nothing_and_hide_nobody(service: Service) -> None:
    made = {
        "cluster_bits": patched(image(service.folder / "a"), 20, struct.pack(">I", 0xFFFFFFFF)),
        "long-name": patched(image(service.folder / "b"), 8, struct.pack(">QI", 104, 600 << 20)),
        "far-name": patched(image(service.folder / "c"), 8, struct.pack(">QI", 1 << 62, 1023)),
        "size": patched(image(service.folder / "d"), 24, b"\xff" * 8),
        "snapshots": patched(image(service.folder / "e"), 60, b"\xff" * 4),
        "unknown-feature": patched(image(service.folder / "f"), 72, b"\xff" * 8),
        "short": service.folder / "g",
        "empty": service.folder / "h",
    }
    os.truncate(made["long-name"], 700 << 20)
    made["short"].write_bytes(image(service.folder / "i").read_bytes()[:76])
    made["empty"].touch()
    ids = {name: service.declare(name, path) for name, path in made.items()}
    before = service.memory()
    shown = service.volumes()
    assert {shown[f"{name}-root"] for name in made} == {"error"}
    assert shown["good-root"] == "in-use"
    for instance_id in ids.values():
        assert "qcow2 header" in service.refused(instance_id)
    servers = service.get("/compute/v2.1/default/servers/detail").json()["servers"]
    assert {one["id"] for one in servers} >= set(ids.values())
    assert service.memory() - before < GROWTH


def test_an_image_that_points_elsewhere_reaches_nobody(service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        names = [f"nbd://127.0.0.1:{port}/x", f"http://127.0.0.1:{port}/x", f"ssh://127.0.0.1:{port}/x"]
        names.append(f'json:{{"driver":"raw","file":{{"driver":"nbd","host":"127.0.0.1","port":"{port}"}}}}')
        middle = image(service.folder / "middle", "-u", "-b", names[0], "-F", "raw")
        for number, name in enumerate([*names, str(middle)]):
            top = image(
                service.folder / f"chain{number}", "-u", "-b", name, "-F", "qcow2" if name == str(middle) else "raw"
            )
            message = service.refused(service.declare(f"chain{number}", top))
            assert "local file" in message
            assert str(port) not in message
            done = service.place.run("instance", "add", f"added{number}", "--disk", f"{top},format=qcow2")
            assert done.code == 4
        service.volumes()
        listener.settimeout(0.5)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_data_file_is_not_opened(service: Service) -> None:
    path = service.folder / "external"
    data = service.folder / "data"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={data}", str(path), "1M")
    content = path.read_bytes()
    assert content.count(bytes(data)) == 1
    # The name is shortened by its own length field in the header extension.
    at = content.index(bytes(data))
    patched(path, at - 4, struct.pack(">I", len(b"/etc/shadow")))
    patched(path, at, b"/etc/shadow".ljust(len(bytes(data)), b"\0"))
    assert "another file" in service.refused(service.declare("external", path))


def test_a_raw_file_that_only_root_may_read_below_an_image_is_not_told_of(service: Service) -> None:
    path = image(service.folder / "shadow", "-u", "-b", "/etc/shadow", "-F", "qcow2")
    assert "shadow" not in service.refused(service.declare("over-shadow", path)).replace("over-shadow", "")


def test_a_fifo_in_a_disk_s_place_makes_nobody_wait(service: Service) -> None:
    path = service.folder / "fifo"
    os.mkfifo(path)
    instance_id = service.declare("fifo", path, "raw")
    paths = ["/volume/v3/default/volumes/detail", "/compute/v2.1/default/servers/detail"] * 8
    start = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        codes = [reply.status_code for reply in pool.map(service.get, paths)]
    assert codes == [200] * 16
    assert time.monotonic() - start < PATIENCE
    assert service.volumes()["fifo-root"] == "error"
    assert "FIFO" in service.refused(instance_id)


def test_a_link_to_itself_hides_nobody(service: Service) -> None:
    path = service.folder / "ring"
    path.symlink_to("ring")
    instance_id = service.declare("ring", path, "raw")
    assert service.volumes()["ring-root"] == "error"
    service.refused(instance_id)


def test_words_of_qemu_img_stay_in_the_log(service: Service) -> None:
    # A header that is sound for itself, and tables that are not.
    path = patched(image(service.folder / "tables"), 48, b"\xff" * 8)
    instance_id = service.declare("tables", path)
    patched(path, 8, struct.pack(">QI", 600, 4))
    patched(path, 600, b"good")
    message = service.refused(instance_id)
    assert "see the service's log for its words" in message
    assert "qemu-img info ended with 1" in service.log.read_text()


def test_a_check_that_needs_too_much_is_refused_before_and_bounded_then(service: Service) -> None:
    path = service.folder / "sparse"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512,refcount_bits=64", str(path), "1G")
    os.truncate(path, 32 << 30)
    assert "too large to be checked" in service.refused(service.declare("sparse", path))
    images = Images(memory=256 * MIB, poll_seconds=0.001)
    largest: list[int] = []

    def watch() -> None:
        for told in Path("/proc").glob("[0-9]*/status"):
            try:
                text = told.read_text()
            except OSError:
                continue
            if "Name:\tqemu-img\n" in text and "VmHWM:" in text and f"PPid:\t{os.getpid()}\n" in text:
                largest.append(int(text.split("VmHWM:")[1].split()[0]) << 10)

    with pytest.raises(StillframeError, match="memory and processor time"):
        images.check(path, Format.QCOW2, watch)
    assert max(largest, default=0) < 256 * MIB


def program(folder: Path, does: str) -> Path:
    """Something that is run in the place of qemu-img."""
    made = folder / "qemu-img"
    made.write_text(f"#!/bin/sh\nexec {does}\n")
    made.chmod(0o755)
    return made


def test_a_check_that_does_not_end_is_ended(tmp_path: Path) -> None:
    slow = program(tmp_path, "sleep 600")
    path = image(tmp_path / "disk")
    start = time.monotonic()
    with pytest.raises(StillframeError, match="did not end"):
        Images(check_seconds=1.0, program=str(slow)).check(path, Format.QCOW2, lambda: None)
    with pytest.raises(StillframeError, match="did not end"):
        Images(timeout=1.0, program=str(slow)).describe(path)
    assert time.monotonic() - start < PATIENCE
    assert threading.active_count() < 50
    assert not subprocess.run(["pgrep", "-f", str(slow)], check=False, capture_output=True).stdout


def test_a_program_that_talks_without_end_is_ended(tmp_path: Path) -> None:
    loud = program(tmp_path, "cat /dev/zero")
    path = image(tmp_path / "disk")
    with pytest.raises(StillframeError, match="cannot read it"):
        Images(program=str(loud)).describe(path)


def test_a_file_of_very_many_stretches_is_copied_without_a_list_of_them(tmp_path: Path) -> None:
    block, stretches = 4096, 20_000
    with (tmp_path / "disk").open("w+b", buffering=0) as disk, (tmp_path / "copy").open("w+b", buffering=0) as copy:
        for number in range(stretches):
            os.pwrite(disk.fileno(), b"%07d" % number, 2 * block * number)
        tracemalloc.start()
        try:
            blocks.copy(disk.fileno(), copy.fileno(), lambda _done, _total: None)
            blocks.free_holes(copy.fileno())
            _size, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert os.pread(copy.fileno(), block, 2 * block * (stretches - 1)).startswith(b"0019999")
    # A list of them takes two megabytes; what other threads do at the time is measured, too.
    assert most < 20 * stretches
