"""The storage driver for Cinder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from stillframe.domain.errors import BackendError, Conflict, Damaged, NotFound, Refused, Unavailable
from stillframe.domain.instance import Instance, Volume
from stillframe.domain.snapshot import CopyKind, CopyName, VolumeSnapshot
from stillframe.drivers.call import Call
from stillframe.drivers.openstack import volumes
from stillframe.drivers.openstack.cloud import Api, Cloud
from stillframe.drivers.openstack.groups import ConsistentGroups
from stillframe.drivers.openstack.reverting import Reverter
from stillframe.drivers.openstack.volumes import STORAGE, Document
from stillframe.drivers.openstack.waiting import TimedOut, Waiting
from stillframe.drivers.storage import Cut, StorageCapabilities

_CAPABILITIES: Final = StorageCapabilities(atomic_restore=False, copy_progress=False)
_AT_A_TIME: Final = 16
_USABLE: Final = ("in-use", "available")


class CinderStorage:
    """Volumes, cut by Cinder's snapshots.

    The copies of an instance snapshot belong to the volume's project, whose users see them, and the safety copies to
    the service's: there they are in nobody's way, for Cinder's newest snapshot is the newest of a project.
    """

    def __init__(self, cloud: Cloud, waiting: Waiting, reverter: Reverter, *, patience: float) -> None:
        self._cloud = cloud
        self._waiting = waiting
        self._reverter = reverter
        self._patience = patience
        self._groups = ConsistentGroups(cloud, waiting, patience)

    @property
    def capabilities(self) -> StorageCapabilities:
        return _CAPABILITIES

    @property
    def _api(self) -> Api:
        return self._cloud.service(STORAGE)

    def list_volumes(self, project_id: str | None) -> Sequence[Volume]:
        """See `StorageDriver`."""
        query = {} if project_id is None else {"project_id": project_id}
        return volumes.list_volumes(self._api, all_tenants="1", **query)

    def get_volume(self, volume_id: str) -> Volume:
        """See `StorageDriver`."""
        return volumes.as_volume(volumes.get_volume(self._api, volume_id))

    def check_cut(self, instance: Instance, volume_ids: Sequence[str]) -> None:
        """See `StorageDriver`."""
        for volume in self._described(volume_ids):
            _require_attached_to(volume, instance.id)
            if volume["status"] not in _USABLE:
                raise Refused(
                    f"Volume {volume['id']} is {volume['status']}; it can be snapshot when it is in-use or available."
                )

    def prepare_cut(self, call: Call, instance: Instance, names: Sequence[CopyName]) -> None:
        """See `StorageDriver`: Cinder has nothing that could be done beforehand."""

    def cut(self, call: Call, instance: Instance, names: Sequence[CopyName]) -> Cut:  # noqa: ARG002 -- of the port
        """See `StorageDriver`: one group snapshot where the volumes are a consistent group, else all at a time.

        The window runs from the first request until the last volume is known to be cut, so it is never too small.
        """
        described = self._described([name.volume_id for name in names])
        group_id = self._groups.of_exactly(described)
        started = time.monotonic()
        if group_id is not None:
            made = self._groups.cut(call, group_id, names)
        else:
            with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="cut") as pool:
                posted = list(pool.map(lambda pair: self._post(call, *pair), zip(names, described, strict=True)))
            made = [self._cut(call, snapshot_id) for snapshot_id in posted]
        window = 0.0 if group_id is not None else (time.monotonic() - started) * 1000
        copies = tuple(volumes.as_copy(snapshot, name) for snapshot, name in zip(made, names, strict=True))
        return Cut(copies, simultaneous=group_id is not None, window_ms=window)

    def complete(self, call: Call, volume_snapshot_id: str) -> VolumeSnapshot:
        """See `StorageDriver`: what Cinder calls available is."""
        snapshot = self._cut(call, volume_snapshot_id)
        return volumes.as_copy(snapshot, _ours(snapshot))

    def find(self, snapshot_id: str | None) -> Sequence[VolumeSnapshot]:
        """See `StorageDriver`."""
        own = self._cloud.project_id()
        found = [
            volumes.as_copy(snapshot, name)
            for snapshot, name in volumes.copies(self._api, snapshot_id)
            # Anybody can give a snapshot such a name, but only in a project of their own.
            if name.kind is not CopyKind.SAFETY or volumes.project_of(snapshot) == own
        ]
        return sorted(found, key=lambda one: one.id)

    def check_restore(self, volume_id: str, volume_snapshot_id: str) -> str:
        """See `StorageDriver`: the strategy."""
        _volume, _snapshot, strategy = self._reverter.check(volume_id, volume_snapshot_id)
        return strategy.value

    def restore(self, call: Call, volume_id: str, volume_snapshot_id: str) -> None:
        """See `StorageDriver`."""
        self._reverter.revert(call, volume_id, volume_snapshot_id)

    def release(self, call: Call, volume_id: str) -> None:
        """See `StorageDriver`."""
        self._reverter.release(call, volume_id)

    def delete(self, call: Call, volume_snapshot_id: str) -> None:
        """See `StorageDriver`; the members of a group snapshot go together, for Cinder lets none go alone."""
        try:
            try:
                snapshot = self._settled(call, volume_snapshot_id)
            except TimedOut:
                snapshot = volumes.get_snapshot(self._api, volume_snapshot_id)
            if snapshot.get("group_snapshot_id"):
                self._groups.delete(call, snapshot["group_snapshot_id"])
                return
            self._reverter.forget(call, volume_snapshot_id)
            if snapshot["status"] in ("available", "error"):
                self._api.delete(f"/snapshots/{volume_snapshot_id}", call.request_id)
            else:
                # What an earlier deletion or a killed service has left in another status Cinder deletes by force only.
                action: Mapping[str, Any] = {"os-force_delete": {}}
                self._api.post(f"/snapshots/{volume_snapshot_id}/action", action, call.request_id)
            self._waiting.until(
                call,
                self._patience,
                f"snapshot {volume_snapshot_id} to be deleted",
                lambda: volumes.get_snapshot(self._api, volume_snapshot_id)["status"] == "error_deleting" or None,
            )
        except NotFound:
            return
        raise BackendError(f"Cinder could not delete snapshot {volume_snapshot_id}; its log says why.")

    def _described(self, volume_ids: Sequence[str]) -> list[Document]:
        with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="look") as pool:
            return list(pool.map(lambda volume_id: volumes.get_volume(self._api, volume_id), volume_ids))

    def _post(self, call: Call, name: CopyName, volume: Document) -> str:
        api = self._api if name.kind is CopyKind.SAFETY else self._cloud.project(STORAGE, volumes.project_of(volume))
        body: Mapping[str, Any] = {
            "snapshot": {
                "volume_id": name.volume_id,
                "name": volumes.name_of(name),
                "description": "A part of an instance snapshot; it is deleted with it.",
                "force": True,
                "metadata": {volumes.SNAPSHOT_KEY: name.snapshot_id},
            }
        }
        try:
            return str(api.post("/snapshots", body, call.request_id)["snapshot"]["id"])
        except Unavailable:
            # The request may have come through without its reply.
            for snapshot, found in volumes.copies(self._api, name.snapshot_id):
                if found == name:
                    return str(snapshot["id"])
            raise

    def _cut(self, call: Call, snapshot_id: str) -> Document:
        snapshot = self._settled(call, snapshot_id)
        if snapshot["status"] not in ("available", "restoring"):
            raise Damaged(f"Cinder could not make snapshot {snapshot_id}: it is {snapshot['status']}.")
        return snapshot

    def _settled(self, call: Call, snapshot_id: str) -> Document:
        """The snapshot once Cinder has nothing to do on it; raises `NotFound` when it is gone."""

        def look() -> Document | None:
            snapshot = volumes.get_snapshot(self._api, snapshot_id)
            return None if snapshot["status"] in ("creating", "deleting") else snapshot

        return self._waiting.until(call, self._patience, f"snapshot {snapshot_id} to be made", look)


def _ours(snapshot: Document) -> CopyName:
    name = volumes.parse_name(snapshot)
    if name is None:
        raise Damaged(f"Snapshot {snapshot['id']} has been renamed; nobody knows any more what it belongs to.")
    return name


def _require_attached_to(volume: Document, instance_id: str) -> None:
    servers = {attachment["server_id"] for attachment in volume["attachments"]}
    if servers - {instance_id}:
        raise Refused(
            f"Volume {volume['id']} is attached to other servers, too, which would go on writing; detach it there."
        )
    if not servers:
        raise Conflict(f"Volume {volume['id']} is not attached to server {instance_id} any more.")
