"""A tiny Ceph: one monitor, one OSD in a sparse file, no manager; for Cinder's own RBD driver."""

from __future__ import annotations

import base64
import os
import struct
import subprocess
import uuid
from collections.abc import Callable

from tests.lab.openstack.services import HOST, Option, Place, Service, free_port, ini

__all__ = ["Ceph"]

POOL = "volumes"
# Run by the system's Python, for only that one has Ceph's libraries: configuration, image, offset, then a length to
# read, or nothing to write what comes on the standard input.
_ACCESS = f"""
import sys, rados, rbd
conf, name, offset, *length = sys.argv[1:]
with rados.Rados(conffile=conf) as cluster, cluster.open_ioctx({POOL!r}) as pool, rbd.Image(pool, name) as image:
    if length:
        sys.stdout.buffer.write(image.read(int(offset), min(int(length[0]), image.size() - int(offset))))
    else:
        image.write(sys.stdin.buffer.read(), int(offset))
        image.flush()
"""


class Ceph:
    """The monitor and the OSD; both are services like the others."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.folder = place.folder / "ceph"
        self.file = self.folder / "ceph.conf"
        self._monitor_port = free_port()
        self.monitor = self._daemon("ceph-mon", "a", self._has_quorum)
        self.osd = self._daemon("ceph-osd", "0", self._is_up)

    def begin(self) -> None:
        """Make the monitor and start it."""
        (self.folder / "mon").mkdir(parents=True)
        (self.folder / "osd").mkdir()
        cluster = str(uuid.uuid4())
        self.file.write_text(ini(self._configuration(cluster)))
        monitors = str(self.folder / "monmap")
        address = f"[v2:{HOST}:{self._monitor_port}]"
        self.place.run("monmaptool", "--create", "--fsid", cluster, "--addv", "a", address, monitors)
        self.place.run("ceph-mon", "--conf", str(self.file), "--id", "a", "--mkfs", "--monmap", monitors)
        # Nobody asks for the key, but os-brick for the file. Type, time of its making, length, and what is secret.
        key = base64.b64encode(struct.pack("<HIIH", 1, 0, 0, 16) + os.urandom(16)).decode()
        (self.folder / "ceph.client.admin.keyring").write_text(ini({"client.admin": {"key": key}}))
        self.monitor.begin()

    def wait(self) -> None:
        """Make the OSD when the monitor answers, start it, and make the pool."""
        self.monitor.wait()
        osd = str(uuid.uuid4())
        self._ceph("osd", "new", osd)
        self.place.run("ceph-osd", "--conf", str(self.file), "--id", "0", "--mkfs", "--osd-uuid", osd)
        self.osd.start()
        self._ceph("osd", "pool", "create", POOL, "8")
        self.place.run("rbd", "--conf", str(self.file), "pool", "init", POOL)

    def cinder_options(self) -> dict[str, Option]:
        return {
            "volume_driver": "cinder.volume.drivers.rbd.RBDDriver",
            "rbd_pool": POOL,
            "rbd_ceph_conf": str(self.file),
            # os-brick looks for the keyring in /etc/ceph by the cluster's name, and nothing of ours is to lie there.
            "rbd_cluster_name": os.path.relpath(self.folder / "ceph", "/etc/ceph"),
            "rbd_user": "admin",
            "rbd_secret_uuid": str(uuid.uuid4()),
        }

    def read(self, image: str, offset: int, length: int | None) -> bytes:
        """Bytes of an image, by default all from `offset` on."""
        return self._access(image, str(offset), str(1 << 62 if length is None else length))

    def write(self, image: str, offset: int, data: bytes) -> None:
        self._access(image, str(offset), given=data)

    def rename_snapshot(self, image: str, before: str, after: str) -> None:
        self.place.run(
            *("rbd", "--conf", str(self.file), "snap", "rename", f"{POOL}/{image}@{before}", f"{POOL}/{image}@{after}")
        )

    def _access(self, *arguments: str, given: bytes = b"") -> bytes:
        command = ["/usr/bin/python3", "-c", _ACCESS, str(self.file), *arguments]
        return subprocess.run(command, input=given, capture_output=True, check=True).stdout

    def _ceph(self, *command: str) -> str:
        return self.place.run("/usr/bin/python3", "/usr/bin/ceph", "--conf", str(self.file), *command, PYTHONPATH="")

    def _has_quorum(self) -> bool:
        # Its first answer comes when there is a quorum; the command waits for that.
        return bool(self._ceph("--connect-timeout", "30", "quorum_status"))

    def _is_up(self) -> bool:
        return "1 up" in self._ceph("osd", "stat")

    def _daemon(self, program: str, name: str, ready: Callable[[], bool]) -> Service:
        command = [f"/usr/bin/{program}", "--conf", str(self.file), "--id", name, "--foreground"]
        return Service(self.place, program, command, ready)

    def _configuration(self, cluster: str) -> dict[str, dict[str, Option]]:
        folder = self.folder
        return {
            "global": {
                "fsid": cluster,
                "mon_host": f"[v2:{HOST}:{self._monitor_port}]",
                "public_addr": HOST,
                "cluster_addr": HOST,
                "ms_bind_port_min": 20000,
                "ms_bind_port_max": 32000,
                **dict.fromkeys(("auth_cluster_required", "auth_service_required", "auth_client_required"), "none"),
                "osd_pool_default_size": 1,
                "osd_pool_default_min_size": 1,
                "osd_crush_chooseleaf_type": 0,
                "mon_allow_pool_size_one": True,
                "mon_allow_pool_delete": True,
                "mon_data_avail_warn": 1,
                "mon_data_avail_crit": 1,
                "run_dir": str(folder),
                "admin_socket": str(folder / "$name.asok"),
                "pid_file": str(folder / "$name.pid"),
                "crash_dir": str(folder),
                "log_to_stderr": True,
                "err_to_stderr": True,
                "log_file": "",
                # Each change of the cluster's maps waits that long (seconds); the default is one.
                "paxos_propose_interval": 0.02,
                "mon_data": str(folder / "mon"),
                "osd_data": str(folder / "osd"),
                "osd_objectstore": "bluestore",
                "bluestore_block_size": 20 << 30,
                "bluestore_block_db_create": False,
                "bluestore_block_wal_create": False,
                "osd_memory_target": 939524096,
                "bluestore_cache_size": 64 << 20,
                "osd_op_num_shards": 2,
                "osd_op_num_threads_per_shard": 1,
                "bluestore_throttle_bytes": 0,
                "osd_class_load_list": "*",
                "osd_class_default_list": "*",
            }
        }
