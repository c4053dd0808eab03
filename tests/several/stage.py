"""A service over image files, two simulated arrays, and the reference driver; and the bytes of all of its volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from stillframe.domain.instance import Attachment, Instance, MemorySource
from stillframe.drivers.compute import ComputeDriver
from stillframe.drivers.files.platform import FilesPlatform
from stillframe.drivers.memory import MemoryDriver
from stillframe.drivers.platform import Drivers, Offer
from stillframe.drivers.qemu.platform import QemuPlatform
from stillframe.drivers.router import Member, Router
from stillframe.drivers.storage import StorageDriver
from stillframe.drivers.storage_virtualize.platform import StorageVirtualizePlatform
from stillframe.drivers.wrappers import CheckPolicy, ComputeUnder
from stillframe.settings import Settings
from tests.lab.storage_virtualize.objects import GRAIN
from tests.lab.storage_virtualize.server import PASSWORD, USER, SimulatedArray

SIZE: Final = 2 * GRAIN
PROJECT: Final = "demo"
INSTANCE: Final = "5b5c9f1e-6c1b-4a0a-9d55-3f6f3a6d1c11"
FILES: Final = ("system", "data")
#: The vdisk of each of the two arrays, which have the names that these have in front.
VDISKS: Final = ("a-log", "b-log")


@dataclass(frozen=True, slots=True)
class Joined(ComputeUnder):
    """A compute driver whose instances have further volumes, in memory."""

    more: tuple[Attachment, ...] = ()

    def get_instance(self, instance_id: str) -> Instance:
        return self._with_more(self.driver.get_instance(instance_id))

    def list_instances(self, project_id: str | None) -> Sequence[Instance]:
        return [self._with_more(one) for one in self.driver.list_instances(project_id)]

    def _with_more(self, instance: Instance) -> Instance:
        return replace(instance, attachments=(*instance.attachments, *self.more))


def make(root: Path, arrays: Mapping[str, SimulatedArray]) -> Path:
    """An instance of two files and a vdisk of each array, and the settings of the service."""
    instances = root / "state" / "instances"
    instances.mkdir(parents=True)
    lines = ['name = "vm"', f'project_id = "{PROJECT}"', f'id = "{INSTANCE}"', f'qmp_socket = "{root}/qmp"']
    for name in FILES:
        (root / f"{name}.img").write_bytes(bytes(SIZE))
        lines += ["[[disks]]", f'name = "{name}"', f'path = "{root}/{name}.img"', 'format = "raw"']
    for vdisk, (name, served) in zip(VDISKS, arrays.items(), strict=True):
        served.array.add_vdisk(vdisk, SIZE)
        lines += ["[[vdisks]]", f'name = "{vdisk}"', f'vdisk = "{vdisk}"', f'array = "{name}"']
    (instances / "vm.toml").write_text("\n".join(lines))
    sections = [
        f"[array:{name}]\nendpoint = {served.endpoint}\nusername = {USER}\npassword = {PASSWORD}\n"
        f"ca_file = {served.ca_file}\ncommands_a_second = 1000\n"
        for name, served in arrays.items()
    ]
    config = root / "stillframe.conf"
    config.write_text(f"""
[DEFAULT]
state_dir = {root}/state
auth_strategy = noauth
[database]
sqlite_synchronous = NORMAL
[drivers]
storage = files, storage_virtualize, memory
first_wait = 0.01
longest_wait = 0.05
attempts = 2
[storage_virtualize]
arrays = {", ".join(arrays)}
poll_seconds = 0.01
{"".join(sections)}""")
    return config


def parts(settings: Settings) -> tuple[Offer, Offer, Offer]:
    """What the packages for QEMU, for files and for arrays offer."""
    qemu = QemuPlatform().open(settings, [])
    files = FilesPlatform().open(settings, [qemu])
    return qemu, files, StorageVirtualizePlatform().open(settings, [qemu, files])


def joined(qemu: Offer, files: Offer, arrays: Offer, memory: MemoryDriver | None = None) -> Drivers:
    """The drivers of all as those of one; with `memory`, the instances have its volumes too."""
    assert qemu.compute is not None
    assert files.storage is not None
    assert arrays.storage is not None
    compute: ComputeDriver = qemu.compute
    members = [
        Member("files", files.storage, FilesPlatform.serves),
        Member("storage_virtualize", arrays.storage, StorageVirtualizePlatform.serves),
    ]
    if memory is not None:
        more = tuple(Attachment(one.id, "memory", MemorySource()) for one in memory.storage.list_volumes(None))
        compute = Joined(compute, CheckPolicy(), more)
        members.append(Member("memory", memory.storage, (MemorySource,)))
    router: StorageDriver = Router(members, compute)
    return Drivers(compute, router, (*qemu.abilities, *files.abilities, *arrays.abilities))


@dataclass(frozen=True, slots=True)
class Volumes:
    """The bytes of all volumes, as a guest writes and reads them."""

    root: Path
    arrays: Mapping[str, SimulatedArray]
    memory: MemoryDriver | None = None

    def write(self, letter: str) -> None:
        """Write all over all volumes, and to each something else."""
        for name in FILES:
            (self.root / f"{name}.img").write_bytes(self._content(name, letter))
        for vdisk, served in zip(VDISKS, self.arrays.values(), strict=True):
            served.write(vdisk, 0, self._content(vdisk, letter))
        for one in self._remembered():
            self._of_memory.write(one, 0, self._content("memory", letter))

    def read(self) -> dict[str, str]:
        """The letter that was written to each last; `mixed` where there is anything else."""
        found = {name: (self.root / f"{name}.img").read_bytes() for name in FILES}
        found |= {vdisk: one.read(vdisk) for vdisk, one in zip(VDISKS, self.arrays.values(), strict=True)}
        for one in self._remembered():
            found["memory"] = self._of_memory.read(one)
        return {name: self._letter(name, content) for name, content in found.items()}

    def all(self, letter: str) -> dict[str, str]:
        """What `read` tells when all volumes are as they were written with a letter."""
        return dict.fromkeys(self.read(), letter)

    @property
    def _of_memory(self) -> MemoryDriver:
        assert self.memory is not None
        return self.memory

    def _remembered(self) -> list[str]:
        return [] if self.memory is None else sorted(self.memory.volumes)

    def _letter(self, name: str, content: bytes) -> str:
        letter = chr(content[0])
        return letter if content == self._content(name, letter) else "mixed"

    def _content(self, name: str, letter: str) -> bytes:
        unit = f"{letter} {name}".encode().ljust(32, b".")
        return unit * (SIZE // len(unit))
