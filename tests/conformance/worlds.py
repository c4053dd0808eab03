"""The worlds that every driver is tried in: each adds instances, and reads and writes their disks as a guest would."""

from __future__ import annotations

import itertools
import json
import shlex
import socket
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stillframe.domain.instance import FileSource, Instance, PowerState, VdiskSource
from stillframe.drivers.files.disks import Disks
from stillframe.drivers.files.images import Images
from stillframe.drivers.files.leftovers import FileLeftovers
from stillframe.drivers.files.storage import FileStorage
from stillframe.drivers.files.turns import TIMEOUT
from stillframe.drivers.image_files.files import Files
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.leftovers import Together
from stillframe.drivers.memory import MemoryDriver
from stillframe.drivers.qemu.commands import Qemu
from stillframe.drivers.qemu.compute import QemuCompute
from stillframe.drivers.qemu.declaration import Declaration, Declarations, DeclaredVdisk, Disk
from stillframe.drivers.qemu.guard import Guard
from stillframe.drivers.qemu.leftovers import QemuLeftovers
from stillframe.drivers.router import Member, Router
from stillframe.drivers.storage import StorageDriver
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.arrays import Arrays
from stillframe.drivers.storage_virtualize.client import Client
from stillframe.drivers.storage_virtualize.options import ArrayOptions, Options
from stillframe.drivers.storage_virtualize.storage import StorageVirtualize
from stillframe.drivers.storage_virtualize.volumes import DeclaredVolumes
from stillframe.testing.world import SIZE, World, a_call
from tests.harness.surround import surround
from tests.lab.storage_virtualize.server import PASSWORD, USER, SimulatedArray


class MemoryWorld(World):
    def __init__(self) -> None:
        self.driver = MemoryDriver()
        self.storage = self.driver.storage
        self.compute = self.driver.compute

    def add(self, sizes: Sequence[int] = (SIZE,), project_id: str = "project") -> Instance:
        return self.driver.add_instance(project_id, f"vm-{uuid.uuid4().hex[:8]}", sizes)

    def forget(self, instance: Instance) -> None:
        self.driver.remove_instance(instance.id)

    def lose(self, volume_id: str) -> None:
        self.driver.remove_volume(volume_id)

    def resize(self, volume_id: str, size: int) -> None:
        self.driver.resize(volume_id, size)

    def read(self, volume_id: str) -> bytes:
        return self.driver.read(volume_id)

    def write(self, volume_id: str, offset: int, data: bytes) -> None:
        self.driver.write(volume_id, offset, data)


class LocalWorld(World):
    """Image files below one folder, and QEMU processes without an operating system in them."""

    def __init__(self, folder: Path, form: Format, files: Files | None = None) -> None:
        self.folder = folder
        self.disks = folder / "disks"
        self.disks.mkdir(parents=True, exist_ok=True)
        self.instances = folder / "instances"
        self.instances.mkdir(exist_ok=True)
        self.state = folder / "state"
        self.form = form
        self.images, self.qemu, self.guard = Images(), Qemu(), Guard()
        self.timeout = TIMEOUT
        self.declarations = Declarations(self.instances)
        # Socket paths are short by law of the kernel.
        self.sockets = Path(tempfile.mkdtemp(prefix="sf-"))
        self.use(files or Files())

    def use(self, files: Files, qemu: Qemu | None = None) -> None:
        """Drivers that reach the world through these objects, as after a restart of the service."""
        self.files, talk = files, qemu or self.qemu
        compute = QemuCompute(self.instances, self.state, files, talk, guard=self.guard)
        self.storage = FileStorage(
            self.declarations, compute, talk, self.state, files, self.images, timeout=self.timeout
        )
        self.compute = compute
        self.leftovers = Together(
            [
                QemuLeftovers(self.declarations, compute.holding),
                FileLeftovers(Disks(self.declarations), self.state, files),
            ]
        )

    def close(self) -> None:
        for declaration in self.declarations.all():
            if declaration.qmp_socket and self.qemu.status(declaration.qmp_socket):
                self.compute.stop(a_call(), declaration.id, 0)
        self.guard.close()
        for left in self.sockets.iterdir():
            left.unlink()
        self.sockets.rmdir()

    def add(self, sizes: Sequence[int] = (SIZE,), project_id: str = "project") -> Instance:
        name = f"vm-{uuid.uuid4().hex[:8]}"
        return self.declare(name, [self.disk(name, number, size) for number, size in enumerate(sizes)], project_id)

    def disk(self, instance: str, number: int, size: int) -> Disk:
        """A new image file, as it is declared."""
        path = self.disks / f"{instance}-{number}.{self.form}"
        run("qemu-img", "create", "-q", "-f", self.form, str(path), str(size))
        return Disk(name=f"disk{number}", path=path, format=self.form)

    def declare(
        self,
        name: str,
        disks: Sequence[Disk],
        project_id: str = "project",
        agent: Path | None = None,
        vdisks: Sequence[DeclaredVdisk] = (),
    ) -> Instance:
        monitor = self.sockets / f"{name}.qmp"
        declaration = Declaration(
            id=str(uuid.uuid4()),
            name=name,
            project_id=project_id,
            disks=tuple(disks),
            vdisks=tuple(vdisks),
            qmp_socket=monitor,
            guest_agent_socket=agent,
            start_command=machine(monitor, disks),
        )
        self.declarations.add(self.files, self.images, declaration)
        return self.compute.get_instance(declaration.id)

    def forget(self, instance: Instance) -> None:
        self.declarations.remove(self.files, instance.name)

    def lose(self, volume_id: str) -> None:
        self.path(volume_id).unlink()

    def resize(self, volume_id: str, size: int) -> None:
        run("qemu-img", "resize", "-q", "--shrink", "-f", self.form, str(self.path(volume_id)), str(size))

    def path(self, volume_id: str) -> Path:
        return Path(self.declarations.volume(volume_id)[1].path)

    def read(self, volume_id: str) -> bytes:
        return content(self.path(volume_id), self.form, self.folder)

    def write(self, volume_id: str, offset: int, data: bytes) -> None:
        declaration, disk = self.declarations.volume(volume_id)
        with tempfile.NamedTemporaryFile(dir=self.sockets) as file:
            file.write(data)
            file.flush()
            order = f"write -s {file.name} {offset} {len(data)}"
            if self.compute.get_instance(declaration.id).power_state is PowerState.SHUTOFF:
                run("qemu-io", "-f", disk.format, "-c", order, str(disk.path))
            else:
                # Through the device's own back end, as the guest's writes go.
                device = f"/machine/peripheral/{disk.name}-device/virtio-backend"
                said = self.monitor(declaration.id, f'qemu-io -d {device} "{order}"')
                assert not said, said

    def monitor(self, instance_id: str, line: str) -> str:
        """The human monitor's answer."""
        return str(ask(self.second_monitor(instance_id), "human-monitor-command", {"command-line": line}))

    def second_monitor(self, instance_id: str) -> Path:
        """A monitor that the driver does not know of."""
        monitor = self.declarations.instance(instance_id).qmp_socket
        assert monitor is not None
        return monitor.with_suffix(".second")


class ArrayWorld(World):
    """Volumes on a simulated Storage Virtualize array, declared for the local driver's instances."""

    def __init__(self, folder: Path, served: SimulatedArray, options: Options | None = None) -> None:
        self.served = served
        self.declarations = Declarations(folder / "instances")
        self.files, self.images, self.qemu, self.guard = Files(), Images(), Qemu(), Guard()
        self.compute = QemuCompute(self.declarations.folder, folder / "state", self.files, self.qemu, guard=self.guard)
        # Socket paths are short by law of the kernel.
        self.sockets = Path(tempfile.mkdtemp(prefix="sf-"))
        address = ArrayOptions("a", served.endpoint, USER, PASSWORD, ca_file=served.ca_file, first_wait=0.02)
        self.options = options or Options(poll_seconds=0.01)
        self.client = Client(address)
        self.arrays = Arrays([Array(self.client)])
        self.volumes = DeclaredVolumes(self.declarations, self.arrays)
        self.storage: StorageDriver = StorageVirtualize(self.options, self.arrays, self.volumes)

    def close(self) -> None:
        for declaration in self.declarations.all():
            if declaration.qmp_socket and self.qemu.status(declaration.qmp_socket):
                self.compute.stop(a_call(), declaration.id, 0)
        self.guard.close()
        self.client.close()
        for left in self.sockets.iterdir():
            left.unlink()
        self.sockets.rmdir()

    def add(self, sizes: Sequence[int] = (SIZE,), project_id: str = "project") -> Instance:
        name = f"vm-{uuid.uuid4().hex[:8]}"
        vdisks = []
        for number, size in enumerate(sizes):
            with self.served.lock:
                self.served.array.add_vdisk(f"{name}-{number}", size)
            vdisks.append(DeclaredVdisk(name=f"disk{number}", vdisk=f"{name}-{number}"))
        return self.declare(name, vdisks, project_id)

    def declare(self, name: str, vdisks: Sequence[DeclaredVdisk], project_id: str = "project") -> Instance:
        monitor = self.sockets / f"{name}.qmp"
        declaration = Declaration(
            id=str(uuid.uuid4()),
            name=name,
            project_id=project_id,
            vdisks=tuple(vdisks),
            qmp_socket=monitor,
            start_command=machine(monitor, ()),
        )
        self.declarations.add(self.files, self.images, declaration)
        return self.compute.get_instance(declaration.id)

    def holder(self, volume_id: str) -> Instance:
        """The instance that has a volume, as it is now."""
        return next(one for one in self.compute.list_instances(None) if volume_id in one.volume_ids)

    def vdisk(self, volume_id: str) -> str:
        return self.volumes.place(volume_id).vdisk

    def forget(self, instance: Instance) -> None:
        self.declarations.remove(self.files, instance.name)

    def lose(self, volume_id: str) -> None:
        with self.served.lock:
            self.served.array.remove_vdisk(self.served.array.vdisk(self.vdisk(volume_id)), force=True)

    def resize(self, volume_id: str, size: int) -> None:
        with self.served.lock:
            self.served.array.resize(self.vdisk(volume_id), size)

    def read(self, volume_id: str) -> bytes:
        return self.served.read(self.vdisk(volume_id))

    def write(self, volume_id: str, offset: int, data: bytes) -> None:
        self.served.write(self.vdisk(volume_id), offset, data)


class RouterWorld(LocalWorld):
    """Volumes that are image files and vdisks by turns, of one instance or of several, behind the router."""

    def __init__(self, folder: Path, form: Format, served: SimulatedArray) -> None:
        super().__init__(folder, form)
        self.served = served
        address = ArrayOptions("a", served.endpoint, USER, PASSWORD, ca_file=served.ca_file, first_wait=0.02)
        self.client = Client(address)
        arrays = Arrays([Array(self.client)])
        volumes = DeclaredVolumes(self.declarations, arrays)
        vdisks = StorageVirtualize(Options(poll_seconds=0.01), arrays, volumes)
        members = [Member("files", self.storage, (FileSource,)), Member("arrays", vdisks, (VdiskSource,))]
        self.storage = Router(members, self.compute)
        self._alone = itertools.cycle([0, 1])

    def close(self) -> None:
        super().close()
        self.client.close()

    def add(self, sizes: Sequence[int] = (SIZE,), project_id: str = "project") -> Instance:
        name = f"vm-{uuid.uuid4().hex[:8]}"
        files = next(self._alone) if len(sizes) == 1 else (len(sizes) + 1) // 2
        disks = [self.disk(name, number, size) for number, size in enumerate(sizes[:files])]
        vdisks = []
        for number, size in enumerate(sizes[files:], files):
            with self.served.lock:
                self.served.array.add_vdisk(f"{name}-{number}", size)
            vdisks.append(DeclaredVdisk(name=f"disk{number}", vdisk=f"{name}-{number}"))
        return self.declare(name, disks, project_id, vdisks=vdisks)

    def vdisk(self, volume_id: str) -> str | None:
        """The vdisk that a volume is, None for an image file."""
        sources = [
            one.attachment.source for one in self.declarations.attached() if one.attachment.volume_id == volume_id
        ]
        return next((one.vdisk for one in sources if isinstance(one, VdiskSource)), None)

    def lose(self, volume_id: str) -> None:
        vdisk = self.vdisk(volume_id)
        if vdisk is None:
            super().lose(volume_id)
            return
        with self.served.lock:
            self.served.array.remove_vdisk(self.served.array.vdisk(vdisk), force=True)

    def resize(self, volume_id: str, size: int) -> None:
        vdisk = self.vdisk(volume_id)
        if vdisk is None:
            super().resize(volume_id, size)
            return
        with self.served.lock:
            self.served.array.resize(vdisk, size)

    def read(self, volume_id: str) -> bytes:
        vdisk = self.vdisk(volume_id)
        return super().read(volume_id) if vdisk is None else self.served.read(vdisk)

    def write(self, volume_id: str, offset: int, data: bytes) -> None:
        vdisk = self.vdisk(volume_id)
        if vdisk is None:
            super().write(volume_id, offset, data)
        else:
            self.served.write(vdisk, offset, data)


def ask(path: Path, command: str, arguments: dict[str, Any] | None = None) -> Any:
    """What QEMU answers, asked past the driver."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(10)
        channel.connect(str(path))
        with channel.makefile("rwb") as stream:
            stream.readline()
            for name, given in (("qmp_capabilities", {}), (command, arguments or {})):
                stream.write(json.dumps({"execute": name, "arguments": given}).encode() + b"\n")
                stream.flush()
                reply: dict[str, Any] = {"event": ""}
                while "event" in reply:
                    reply = json.loads(stream.readline())
            return reply["return"]


def machine(monitor: Path, disks: Sequence[Disk]) -> tuple[str, ...]:
    """The command of a small machine without a system on it."""
    drives = [
        part
        for disk in disks
        for part in (
            "-blockdev",
            f"driver={disk.format},node-name={disk.name},file.driver=file,file.filename={disk.path}",
            "-device",
            f"virtio-blk-pci,id={disk.name}-device,drive={disk.name}",
        )
    ]
    second = monitor.with_suffix(".second")
    start = "qemu-system-x86_64 -machine pc -nodefaults -display none -m 64"
    return (
        *shlex.split(start),
        "-qmp",
        f"unix:{monitor},server=on,wait=off",
        "-qmp",
        f"unix:{second},server=on,wait=off",
        *drives,
    )


def content(path: Path, form: Format, room: Path) -> bytes:
    """The bytes of an image as a guest reads them."""
    if form is Format.RAW:
        return path.read_bytes()
    plain = room / f"{uuid.uuid4().hex}.plain"
    run("qemu-img", "convert", "-U", "-f", form, "-O", "raw", str(path), str(plain))
    try:
        return plain.read_bytes()
    finally:
        plain.unlink()


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Agent:
    """A guest agent that freezes nothing but keeps the books; `deaf` to freezing it answers with an error.

    `heard`: what it was asked to do; a look at it changes nothing and is not among that.
    """

    def __init__(self, path: Path, *, deaf: bool = False) -> None:
        self.heard: list[str] = []
        self.deaf = deaf
        self.frozen = False
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                channel, _ = self._server.accept()
            except OSError:
                return
            with channel, channel.makefile("rwb") as stream:
                for line in stream:
                    if line.startswith(b"\xff"):
                        # As qemu-ga does: the byte resets its parser and is answered as an error of its own.
                        stream.write(b'{"error": {"class": "GenericError", "desc": "JSON parse error, stray"}}\n')
                    message = json.loads(line.rpartition(b"\xff")[2])
                    stream.write(self._answer(message["execute"], message.get("arguments", {})))
                    stream.flush()

    def _answer(self, command: str, arguments: dict[str, Any]) -> bytes:
        if command == "guest-sync-delimited":
            # What an earlier client never read comes first.
            return b'{"return": 5}\n\xff' + json.dumps({"return": arguments["id"]}).encode() + b"\n"
        if command == "guest-fsfreeze-status":
            return json.dumps({"return": "frozen" if self.frozen else "thawed"}).encode() + b"\n"
        self.heard.append(command)
        if self.deaf and command == "guest-fsfreeze-freeze":
            return b'{"error": {"class": "GenericError", "desc": "no"}}\n'
        self.frozen = command == "guest-fsfreeze-freeze"
        return b'{"return": 2}\n'


class Stopped(BaseException):
    """The process ended here."""


def stopping(at: int) -> tuple[Files, Qemu]:
    """Both ways out to the world; call number `at` through either of them is never made."""
    count = itertools.count()

    def around(_name: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if next(count) == at:
            raise Stopped
        return method(*args, **kwargs)

    return surround(Files(), around), surround(Qemu(), around)
