"""The instances of a storm: raw disks in a folder for each, and what their restores leave there."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stillframe.drivers.local.copies import FOLDER
from stillframe.drivers.local.declaration import Declaration, Declarations, Disk
from stillframe.drivers.local.files import Files
from stillframe.drivers.local.images import Format, Images
from tests.property.model import Model
from tests.storm.plan import DISKS, first_content

_REPEATED: Final = 4096  # times 64 bytes


@dataclass(frozen=True, slots=True)
class Machine:
    """An instance that is off, and where its disks are."""

    name: str
    project: str
    folder: Path
    declaration: Declaration

    @property
    def id(self) -> str:
        return self.declaration.id

    def volume(self, disk: str) -> str:
        return self.declaration.volume_id(next(one for one in self.declaration.disks if one.name == disk))

    def write(self, disk: str, content: bytes) -> None:
        """In place, as a guest would."""
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
            if (copies / one / "data").read_bytes() != expected[one] * _REPEATED
        ]
        left = {path.name for path in self.folder.iterdir()} - {FOLDER, *(f"{disk}.img" for disk in DISKS)}
        return found + [f"{self.name}: {one} is left over" for one in sorted(left)]


def machines(folder: Path, instances: Path, count: int, projects: int) -> list[Machine]:
    """New instances, in turn of each project, with content of their own."""
    made = []
    for number in range(count):
        name = f"vm{number:02}"
        home = folder / name
        home.mkdir(parents=True)
        for disk in DISKS:
            (home / f"{disk}.img").write_bytes(first_content(name, disk) * _REPEATED)
        declaration = Declaration(
            id=str(uuid.uuid5(uuid.NAMESPACE_OID, name)),
            name=name,
            project_id=f"project-{number % projects}",
            disks=tuple(Disk(name=disk, path=home / f"{disk}.img", format=Format.RAW) for disk in DISKS),
        )
        Declarations(instances).add(Files(), Images(), declaration)
        made.append(Machine(name, declaration.project_id, home, declaration))
    return made
