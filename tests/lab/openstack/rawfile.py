"""A volume driver for Cinder that keeps each volume and snapshot in a sparse raw file, and fails when it is told to.

It runs in cinder-volume. The folder has `volume-<id>` and `snapshot-<id>`, a file `lock`, which whoever writes to a
volume or cuts a snapshot holds (so a snapshot, also one of a group, is one instant), and `faults.json`.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cinder import exception, interface
from cinder.image import image_utils
from cinder.objects.fields import GroupSnapshotStatus, GroupStatus, SnapshotStatus
from cinder.volume import driver, volume_utils
from oslo_config import cfg

GIB = 1 << 30
OPTIONS = [
    cfg.StrOpt("rawfile_folder", help="Where the volumes are"),
    cfg.BoolOpt("rawfile_backup_before_revert", default=False, help="Let Cinder cut a snapshot of its own first"),
]


class InjectedError(exception.VolumeDriverException):  # type: ignore[misc]
    message = "this failure was ordered: %(call)s"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # To block would stop all green threads of the process, the one that holds the lock among them.
                time.sleep(0.01)
        yield


def order_of(folder: Path, call: str, ids: Iterable[str]) -> dict[str, Any] | None:
    """Take the first order in faults.json that is meant for this call, and count it down."""
    file = folder / "faults.json"
    with locked(folder):
        orders = json.loads(file.read_text()) if file.exists() else []
        for order in orders:
            if order["call"] == call and order["id"] in ("*", *ids) and order["times"] > 0:
                order["times"] -= 1
                unfinished = file.with_suffix(".part")
                unfinished.write_text(json.dumps(orders))
                unfinished.replace(file)
                return dict(order)
    return None


def hang(folder: Path, order: dict[str, Any]) -> None:
    """Wait for as long as was ordered, or until the orders are cleared."""
    end = time.monotonic() + order["seconds"]
    while time.monotonic() < end and any(
        one["call"] == order["call"] and one["id"] == order["id"]
        for one in json.loads((folder / "faults.json").read_text())
    ):
        time.sleep(0.05)


def faulty(method: Callable[..., Any]) -> Callable[..., Any]:
    """Look for an order at each call: `fail` before it happens, `hang` before it happens, `fail_after` it has, and
    `lack` as a driver does that cannot do it at all.
    """

    @functools.wraps(method)
    def call(self: RawFileDriver, *args: Any, **kwargs: Any) -> Any:
        ids: set[str] = set()
        for one in (*args, *kwargs.values()):
            for single in one if isinstance(one, list) else [one]:
                ids.update(str(getattr(single, name, "")) for name in ("id", "volume_id", "group_id"))
        order = order_of(self.folder, method.__name__, ids)
        action = order["action"] if order else ""
        if action == "fail":
            raise InjectedError(call=method.__name__)
        if action == "lack":
            raise NotImplementedError
        if order and action == "hang":
            hang(self.folder, order)
        result = method(self, *args, **kwargs)
        if action == "fail_after":
            raise InjectedError(call=method.__name__)
        return result

    return call


def copy(source: Path, target: Path, size: int) -> None:
    """Put a sparse copy of `size` bytes in the place of `target`: all of it or, after a crash, nothing."""
    unfinished = target.with_name(f"{target.name}.part")
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(source), str(unfinished)], check=True)
    os.truncate(unfinished, size)
    unfinished.replace(target)


@interface.volumedriver
class RawFileDriver(driver.VolumeDriver):  # type: ignore[misc]
    """Sparse files; snapshots are reflinks where the file system has them."""

    VERSION = "1.0.0"
    CI_WIKI_NAME = "none"
    SUPPORTED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.configuration.append_config_values(OPTIONS)
        self.folder = Path(self.configuration.rawfile_folder)

    @staticmethod
    def get_driver_options() -> list[cfg.Opt]:
        return OPTIONS

    def check_for_setup_error(self) -> None:
        self.folder.mkdir(exist_ok=True)

    def _update_volume_stats(self) -> None:
        room = os.statvfs(self.folder)
        self._stats = {
            "volume_backend_name": self.configuration.volume_backend_name,
            "vendor_name": "Stillframe",
            "driver_version": self.VERSION,
            "storage_protocol": "file",
            "total_capacity_gb": 10_000,
            "free_capacity_gb": min(10_000, room.f_bavail * room.f_frsize // GIB * 100),
            "reserved_percentage": 0,
            "thin_provisioning_support": True,
            "consistent_group_snapshot_enabled": True,
            "multiattach": True,
        }

    def local_path(self, volume: Any) -> str:
        return str(self._volume(volume))

    def _volume(self, volume: Any) -> Path:
        return self.folder / f"volume-{volume.id}"

    def _snapshot(self, snapshot: Any) -> Path:
        return self.folder / f"snapshot-{snapshot.id}"

    def snapshot_revert_use_temp_snapshot(self) -> bool:
        return bool(self.configuration.rawfile_backup_before_revert)

    @faulty
    def create_volume(self, volume: Any) -> None:
        with self._volume(volume).open("wb") as file:
            file.truncate(volume.size * GIB)

    @faulty
    def delete_volume(self, volume: Any) -> None:
        self._volume(volume).unlink(missing_ok=True)

    @faulty
    def extend_volume(self, volume: Any, new_size: int) -> None:
        os.truncate(self._volume(volume), new_size * GIB)

    @faulty
    def create_snapshot(self, snapshot: Any) -> None:
        with locked(self.folder):
            self._cut(snapshot)

    @faulty
    def delete_snapshot(self, snapshot: Any) -> None:
        self._snapshot(snapshot).unlink(missing_ok=True)

    @faulty
    def revert_to_snapshot(self, context: Any, volume: Any, snapshot: Any) -> None:
        with locked(self.folder):
            copy(self._snapshot(snapshot), self._volume(volume), volume.size * GIB)

    @faulty
    def create_volume_from_snapshot(self, volume: Any, snapshot: Any) -> None:
        copy(self._snapshot(snapshot), self._volume(volume), volume.size * GIB)

    @faulty
    def create_cloned_volume(self, volume: Any, src_vref: Any) -> None:
        with locked(self.folder):
            copy(self._volume(src_vref), self._volume(volume), volume.size * GIB)

    @faulty
    def copy_image_to_volume(
        self,
        context: Any,
        volume: Any,
        image_service: Any,
        image_id: str,
        disable_sparse: bool = False,
    ) -> None:
        target = self._volume(volume)
        fetched = target.with_name(f"{target.name}.image")
        block = self.configuration.volume_dd_blocksize
        image_utils.fetch_to_raw(context, image_service, image_id, str(fetched), block, size=volume.size)
        with locked(self.folder):
            copy(fetched, target, volume.size * GIB)
        fetched.unlink()

    @faulty
    def copy_volume_to_image(self, context: Any, volume: Any, image_service: Any, image_meta: Any) -> None:
        volume_utils.upload_volume(context, image_service, image_meta, self.local_path(volume), volume)

    def ensure_export(self, context: Any, volume: Any) -> None: ...

    def create_export(self, context: Any, volume: Any, connector: Any) -> None: ...

    def remove_export(self, context: Any, volume: Any) -> None: ...

    @faulty
    def initialize_connection(self, volume: Any, connector: Any) -> dict[str, Any]:
        return {"driver_volume_type": "local", "data": {"device_path": self.local_path(volume)}}

    @faulty
    def terminate_connection(self, volume: Any, connector: Any, **kwargs: Any) -> None: ...

    @faulty
    def create_group(self, context: Any, group: Any) -> dict[str, Any]:
        self._must_be_consistent(group)
        return {"status": GroupStatus.AVAILABLE}

    @faulty
    def update_group(self, context: Any, group: Any, add_volumes: Any = None, remove_volumes: Any = None) -> Any:
        self._must_be_consistent(group)
        return None, None, None

    @faulty
    def delete_group(self, context: Any, group: Any, volumes: list[Any]) -> Any:
        self._must_be_consistent(group)
        for volume in volumes:
            self._volume(volume).unlink(missing_ok=True)
        return {"status": GroupStatus.DELETED}, [{"id": one.id, "status": "deleted"} for one in volumes]

    @faulty
    def create_group_snapshot(self, context: Any, group_snapshot: Any, snapshots: list[Any]) -> Any:
        self._must_be_consistent(group_snapshot)
        with locked(self.folder):
            for snapshot in snapshots:
                self._cut(snapshot)
        updates = [{"id": one.id, "status": SnapshotStatus.AVAILABLE} for one in snapshots]
        return {"status": GroupSnapshotStatus.AVAILABLE}, updates

    @faulty
    def delete_group_snapshot(self, context: Any, group_snapshot: Any, snapshots: list[Any]) -> Any:
        self._must_be_consistent(group_snapshot)
        for snapshot in snapshots:
            self._snapshot(snapshot).unlink(missing_ok=True)
        updates = [{"id": one.id, "status": SnapshotStatus.DELETED} for one in snapshots]
        return {"status": GroupSnapshotStatus.DELETED}, updates

    def _cut(self, snapshot: Any) -> None:
        source = self._volume(snapshot.volume)
        copy(source, self._snapshot(snapshot), source.stat().st_size)

    def _must_be_consistent(self, group: Any) -> None:
        # Cinder then goes through the members one by one.
        if not volume_utils.is_group_a_cg_snapshot_type(group):
            raise NotImplementedError
