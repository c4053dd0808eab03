"""The shelf keeps the contract of every driver, chosen by the settings."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

from stillframe.domain.instance import Instance
from stillframe.drivers.memory import MemoryDriver
from stillframe.drivers.registry import open_drivers
from stillframe.settings import load
from stillframe.testing.compute import TestQuiesce
from stillframe.testing.storage import TestChecks, TestCopies, TestRestore
from stillframe.testing.world import SIZE, World

__all__ = ["TestChecks", "TestCopies", "TestQuiesce", "TestRestore"]


class ShelfWorld(World):
    """Instances in memory, volumes on the shelf."""

    def __init__(self, folder: Path) -> None:
        chosen = [("drivers", "compute", "memory"), ("drivers", "storage", "shelf"), ("shelf", "folder", str(folder))]
        drivers = open_drivers(load(overrides=chosen))
        machines = drivers.ability(MemoryDriver)
        assert machines is not None
        self.machines, self.compute, self.storage = machines, drivers.compute, drivers.storage
        self.volumes = folder / "volumes"

    def add(self, sizes: Sequence[int] = (SIZE,), project_id: str = "project") -> Instance:
        instance = self.machines.add_instance(project_id, f"vm-{uuid.uuid4().hex[:8]}", sizes)
        for volume_id, size in zip(instance.volume_ids, sizes, strict=True):
            (self.volumes / volume_id).touch()
            self.resize(volume_id, size)
        return instance

    def forget(self, instance: Instance) -> None:
        self.machines.remove_instance(instance.id)

    def lose(self, volume_id: str) -> None:
        (self.volumes / volume_id).unlink()

    def resize(self, volume_id: str, size: int) -> None:
        os.truncate(self.volumes / volume_id, size)

    def read(self, volume_id: str) -> bytes:
        return (self.volumes / volume_id).read_bytes()

    def write(self, volume_id: str, offset: int, data: bytes) -> None:
        with (self.volumes / volume_id).open("r+b") as file:
            file.seek(offset)
            file.write(data)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return ShelfWorld(tmp_path)
