"""The instances of a storm: raw disks in a folder for each, some with a guest, and what their restores leave there."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stillframe.drivers.files.copies import FOLDER
from stillframe.drivers.files.records import RECORDS
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.qemu.declaration import Declaration, Disk
from tests.property.model import Model
from tests.storm.guests import Guest
from tests.storm.plan import DISKS, first_content

_REPEATED: Final = 4096  # times 64 bytes
# Folders of what stays of an instance as long as there is one: locks that nobody holds, and what QEMU says.
_KEPT: Final = frozenset({"holding", "logs"})


@dataclass(frozen=True, slots=True)
class Machine:
    """An instance that is off, or has a guest, and where its disks are."""

    name: str
    project: str
    folder: Path
    state: Path
    declaration: Declaration
    guest: Guest | None = None

    @property
    def id(self) -> str:
        return self.declaration.id

    def volume(self, disk: str) -> str:
        return self.declaration.volume_id(next(one for one in self.declaration.disks if one.name == disk))

    def write(self, disk: str, content: bytes) -> None:
        """In place, as a guest would."""
        if self.guest is not None and self.guest.write(disk, content * _REPEATED):
            return
        with (self.folder / f"{disk}.img").open("r+b") as file:
            file.write(content * _REPEATED)

    def wrong(self, model: Model, shown: dict[str, dict[str, Any]]) -> list[str]:
        """Everything about the disks and copies that is not as the model says; `shown` are the snapshots by name."""
        found = [
            f"{self.name}: disk {disk} holds something else"
            for disk in DISKS
            if (self.folder / f"{disk}.img").read_bytes() != model.disks[disk] * _REPEATED
        ]
        expected: dict[str, bytes] = {}
        for name, snapshot in model.snapshots.items():
            for key, contents in (("snapshots", snapshot.snapshots), ("temp_snapshots", snapshot.temp)):
                ids = {disk: (shown[name][key] or {}).get(self.volume(disk)) for disk in contents or {}}
                if set(shown[name][key] or {}) != {self.volume(disk) for disk in contents or {}}:
                    found.append(f"{name}: {key} is {shown[name][key]}")
                expected.update({str(ids[disk]): data for disk, data in (contents or {}).items()})
        copies = self.folder / FOLDER
        there = {path.name for path in copies.iterdir()} if copies.is_dir() else set()
        found += [f"{self.name}: there is no copy {one}" for one in sorted(set(expected) - there)]
        found += [f"{self.name}: {one} is left over" for one in sorted(there - set(expected))]
        found += [
            f"{self.name}: copy {one} holds something else"
            for one in sorted(set(expected) & there)
            if _content(copies / one / "data") != expected[one] * _REPEATED
        ]
        left = {path.name for path in self.folder.iterdir()} - {FOLDER, *(f"{disk}.img" for disk in DISKS)}
        found += [f"{self.name}: {one} is left over" for one in sorted(left)]
        return found + self._noted(expected, fenced=model.fence is not None)

    def held(self) -> list[str]:
        """What says that the guest is or may be held still."""
        found = [f"the guest is {self.guest.held()}"] if self.guest is not None and self.guest.held() else []
        return found + (["there is a mark"] if self.mark.exists() else [])

    @property
    def mark(self) -> Path:
        return self.state / "quiesced" / self.id

    def _noted(self, copies: Collection[str], *, fenced: bool) -> list[str]:
        """What of the service's own notes about this instance should not be there, or is missing."""
        fence = self.state / "fences" / self.id
        found = (
            [f"{self.name}: the fence is {'missing' if fenced else 'left over'}"] if fence.exists() != fenced else []
        )
        # Folders may go while they are walked through, which `os.walk` takes as it is.
        for path in (Path(folder) / name for folder, _folders, names in os.walk(self.state) for name in names):
            if path.parent.name == RECORDS:
                with suppress(FileNotFoundError):
                    if str(self.folder) in path.read_text() and path.name.rpartition(".")[2] not in copies:
                        found.append(f"{self.name}: the record {path.name} is left over")
            elif self.id in path.name and path != fence and path.parent.name not in _KEPT:
                found.append(f"{self.name}: the note {path} is left over")
        return found


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def names(count: int) -> list[str]:
    """Those of so many instances."""
    return [f"vm{number:02}" for number in range(count)]


def disks_of(folder: Path, name: str) -> tuple[Disk, ...]:
    """The disks of an instance below a folder."""
    return tuple(Disk(name=disk, path=folder / name / f"{disk}.img", format=Format.RAW) for disk in DISKS)


def machines(
    folder: Path, state: Path, count: int, projects: int, guests: Mapping[str, Guest] | None = None
) -> list[Machine]:
    """New instances, in turn of each project, with content of their own, some with guests by their names.

    `state` is the service's state folder.
    """
    instances = state / "instances"
    instances.mkdir(parents=True)
    made = []
    for number, name in enumerate(names(count)):
        home = folder / name
        home.mkdir(parents=True)
        for disk in DISKS:
            (home / f"{disk}.img").write_bytes(first_content(name, disk) * _REPEATED)
        guest = (guests or {}).get(name)
        declaration = Declaration(
            id=str(uuid.uuid5(uuid.NAMESPACE_OID, name)),
            name=name,
            project_id=f"project-{number % projects}",
            disks=disks_of(folder, name),
            **(guest.declared if guest else {}),
        )
        (instances / f"{name}.toml").write_text(_declared(declaration))
        made.append(Machine(name, declaration.project_id, home, state / "local", declaration, guest))
    return made


def _declared(declaration: Declaration) -> str:
    """The file, written out: every release reads it."""
    lines = [f'{key} = "{getattr(declaration, key)}"' for key in ("id", "name", "project_id")]
    for key in ("qmp_socket", "guest_agent_socket"):
        lines += [f'{key} = "{getattr(declaration, key)}"'] if getattr(declaration, key) else []
    lines += [f"start_command = {json.dumps(declaration.start_command)}"] if declaration.start_command else []
    for disk in declaration.disks:
        lines += ["[[disks]]", *(f'{key} = "{getattr(disk, key)}"' for key in ("name", "path", "format"))]
    return "\n".join([*lines, ""])
