"""A world that a service lives in: an instance with two disks, and everything that an operation may leave behind."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from stillframe.drivers.qemu.declaration import Declaration, Declarations
from stillframe.engine.persistence import FlowBooks
from stillframe.main import Service
from stillframe.store.tables import FENCES, INSTANCE_LOCKS, SNAPSHOTS

_SIZE: Final = 256 * 1024
# A PC begins 16 bytes below the end of its firmware: cli; hlt; and the same again. The guest runs, and takes no time.
_FIRMWARE: Final = bytes(65536 - 16) + b"\xfa\xf4\xeb\xfc".ljust(16, b"\0")


def make(root: Path, *, qemu: bool) -> None:
    """Two small disks with content of their own, declared as one instance; with `qemu` it can run."""
    disks, state = root / "disks", root / "state"
    for folder in (disks, state / "instances"):
        folder.mkdir(parents=True)
    for name in ("a", "b"):
        (disks / f"{name}.img").write_bytes(hashlib.sha512(name.encode()).digest() * (_SIZE // 64))
    lines = ['name = "vm"', 'project_id = "demo"', f'id = "{uuid.uuid5(uuid.NAMESPACE_OID, str(root))}"']
    if qemu:
        (root / "firmware").write_bytes(_FIRMWARE)
        lines += [f'qmp_socket = "{root}/qmp"', f"start_command = {_command(root)}"]
    for name in ("a", "b"):
        lines += ["[[disks]]", f'name = "{name}"', f'path = "{disks}/{name}.img"', 'format = "raw"']
    (state / "instances" / "vm.toml").write_text("\n".join(lines))


def instance_of(root: Path) -> Declaration:
    """The one instance of a world."""
    return next(iter(Declarations(root / "state" / "instances").all()))


def _command(root: Path) -> list[str]:
    drives: list[str] = []
    for name in ("a", "b"):
        drives += ["-drive", f"file={root}/disks/{name}.img,format=raw,if=virtio,cache=none"]
    monitor = f"unix:{root}/qmp,server=on,wait=off"
    machine = ["-nodefaults", "-display", "none", "-m", "16", "-bios", f"{root}/firmware"]
    return ["qemu-system-x86_64", *machine, "-qmp", monitor, *drives]


class World:
    """What is left of a world, told without ids that differ from play to play."""

    def __init__(self, root: Path, service: Service) -> None:
        self._root = root
        self._service = service
        declaration = instance_of(root)
        self._instance_id = declaration.id
        self._names = {declaration.volume_id(disk): disk.name for disk in declaration.disks}

    def describe(self) -> dict[str, Any]:
        """Bytes, rows, statuses, copies, leftovers, fences, locks, books and the power state."""
        with self._service.database.reader.connect() as connection:
            rows = connection.execute(sa.select(SNAPSHOTS).order_by(SNAPSHOTS.c.created_at)).mappings().all()
            fences = connection.execute(sa.select(sa.func.count()).select_from(FENCES)).scalar_one()
            locks = connection.execute(sa.select(sa.func.count()).select_from(INSTANCE_LOCKS)).scalar_one()
        copies = self._service.drivers.storage.find(None)
        compute = self._service.drivers.compute
        state = self._root / "state" / "local"
        return {
            "disks": {name: _sum(self._root / "disks" / f"{name}.img") for name in ("a", "b")},
            "snapshots": [self._told(row) for row in rows],
            "copies": sorted([copy.name.kind, self._names[copy.name.volume_id], copy.ready] for copy in copies),
            "files": sorted(_plain(path.name) for path in (self._root / "disks").rglob("*")),
            "fences": [fences, compute.fenced_by(self._instance_id) is not None],
            "locks": locks,
            "quiesced": len(list((state / "quiesced").glob("*"))),
            "power": compute.get_instance(self._instance_id).power_state.value,
        }

    @staticmethod
    def busy(service: Service) -> bool:
        """Whether an operation is open, a book is left, or an instance is reserved."""
        with service.database.reader.connect() as connection:
            locks = connection.execute(sa.select(sa.func.count()).select_from(INSTANCE_LOCKS)).scalar_one()
        return bool(service.snapshots.operations.unfinished() or locks or FlowBooks(service.database.writer).ids())

    @staticmethod
    def damage(root: Path) -> None:
        """Write over both disks, in place, as a guest would."""
        for name in ("a", "b"):
            with (root / "disks" / f"{name}.img").open("r+b") as disk:
                disk.seek(4096)
                disk.write(f"damaged {name} ".encode() * 1000)
                os.fsync(disk.fileno())

    @staticmethod
    def second_volume(root: Path) -> str:
        """The id of the volume that is made to fail."""
        declaration = instance_of(root)
        return declaration.volume_id(declaration.disks[1])

    def _told(self, row: sa.RowMapping) -> dict[str, Any]:
        return {
            "name": row["name"],
            "status": row["status"],
            "snapshots": self._contents(row["snapshots"]),
            "temp_snapshots": self._contents(row["temp_snapshots"]),
            "failed_snapshots": self._contents(row["failed_snapshots"]),
            "fault": row["fault"] and row["fault"]["code"],
            "consistency": row["consistency"] and row["consistency"]["level"],
        }

    def _contents(self, copies: dict[str, str] | None) -> dict[str, str] | None:
        if copies is None:
            return None
        folder = self._root / "disks" / ".stillframe"
        return {self._names[volume]: _sum(folder / copy / "data") for volume, copy in copies.items()}


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else "missing"


def _plain(name: str) -> str:
    """A file's name with the ids taken out."""
    stem, dot, suffix = name.partition(".")
    try:
        uuid.UUID(stem)
    except ValueError:
        return name
    return f"<id>{dot}{suffix}"
