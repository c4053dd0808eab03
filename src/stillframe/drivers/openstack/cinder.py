"""The storage driver for Cinder."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from stillframe.domain.errors import BackendError, Conflict, Damaged, NotFound, Refused, Unavailable
from stillframe.domain.instance import Instance, Volume
from stillframe.domain.snapshot import CopyKind, CopyName, CopyReference, VolumeSnapshot
from stillframe.drivers.call import Call
from stillframe.drivers.each import each
from stillframe.drivers.openstack import documents, volumes
from stillframe.drivers.openstack.cloud import Api, Cloud, path_part
from stillframe.drivers.openstack.groups import ConsistentGroups, Maker
from stillframe.drivers.openstack.quotas import require_room
from stillframe.drivers.openstack.reverting import Reverter
from stillframe.drivers.openstack.volume_hosts import VolumeHosts
from stillframe.drivers.openstack.volumes import STORAGE, Document, Looking
from stillframe.drivers.openstack.waiting import TimedOut, Waiting
from stillframe.drivers.storage import Cut, PreparedCut, StorageCapabilities, require_attached

_CAPABILITIES: Final = StorageCapabilities(atomic_restore=False, copy_progress=False)
_AT_A_TIME: Final = 16
_USABLE: Final = ("in-use", "available")
_UNSETTLED: Final = ("creating", "deleting")
# What a cut is told by from any other, an earlier attempt of the same operation too.
_MARK: Final = "A part of an instance snapshot; it is deleted with it. Cut {}."
# Ids of Cinder's have no colons.
_EMPTY_GROUP: Final = "group:"


class CinderStorage:
    """Volumes, cut by Cinder's snapshots.

    The copies of an instance snapshot belong to the volume's project, whose users see them, and the safety copies to
    the service's: there they are in nobody's way, for Cinder's newest snapshot is the newest of a project.
    """

    def __init__(self, cloud: Cloud, looking: Looking, waiting: Waiting, reverter: Reverter, *, timeout: float) -> None:
        self._cloud = cloud
        self._looking = looking
        self._waiting = waiting
        self._reverter = reverter
        self._timeout = timeout
        self._groups = ConsistentGroups(cloud, waiting, timeout)
        self._hosts = VolumeHosts(cloud)

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
        return volumes.as_volume(self._looking.volume(volume_id))

    def check_cut(self, instance: Instance, volume_ids: Sequence[str]) -> None:
        """See `StorageDriver`."""
        described = self._looking.volumes(volume_ids)
        for volume in described:
            _require_attached_to(volume, instance.id)
            if volume["status"] not in _USABLE:
                raise Refused(f"Volume {volume['id']} is {volume['status']}; wait until it is in-use or available.")
            self._reverter.require_way(volume)
        require_room(self._api, instance.project_id, described)
        self._hosts.require(described)

    def simultaneous(self, instance: Instance, volume_ids: Sequence[str]) -> bool:  # noqa: ARG002 -- of the port
        """See `StorageDriver`: where they are all that is in a consistent group."""
        return self._groups.of_exactly(self._looking.volumes(list(volume_ids))) is not None

    def prepare_cut(self, call: Call, instance: Instance, names: Sequence[CopyName]) -> None:  # noqa: ARG002 -- of the port
        """See `StorageDriver`: nothing is made, but safety copies need room, which no check has asked for."""
        if any(name.kind is CopyKind.SAFETY for name in names):
            described = self._looking.volumes([name.volume_id for name in names])
            require_room(self._api, self._cloud.project_id(), described)

    def cut(
        self,
        call: Call,
        instance: Instance,  # noqa: ARG002 -- of the port
        names: Sequence[CopyName],
        prepared: PreparedCut | None = None,  # noqa: ARG002 -- of the port
    ) -> Cut:
        """See `StorageDriver`: one group snapshot where the volumes are a consistent group, else all at a time.

        The window runs from the first request until the last volume is known to be cut, so it is never too small.
        """
        described = self._looking.volumes([name.volume_id for name in names])
        group_id = self._groups.of_exactly(described)
        mark = _MARK.format(uuid.uuid4())
        makers = [self._maker(name, volume) for name, volume in zip(names, described, strict=True)]
        started = time.monotonic()
        if group_id is not None:
            made = self._groups.cut(call, makers[0], group_id, names, mark)
        else:
            with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="cut") as pool:
                posted = list(pool.map(lambda maker, name: self._post(call, maker, name, mark), makers, names))
            owners = {maker.project_id for maker in makers}
            made = self._all_cut(call, names[0].snapshot_id, owners, posted, described)
        window = 0.0 if group_id is not None else (time.monotonic() - started) * 1000
        copies = tuple(volumes.as_copy(snapshot, name) for snapshot, name in zip(made, names, strict=True))
        return Cut(copies, simultaneous=group_id is not None, window_ms=window)

    def complete(self, call: Call, copy: CopyReference) -> VolumeSnapshot:
        """See `StorageDriver`: what Cinder calls available is."""
        snapshot = _require_cut(self._settled(call, copy.id))
        return volumes.as_copy(snapshot, _ours(snapshot))

    def find(
        self,
        snapshot_id: str | None,
        instance_id: str | None = None,  # noqa: ARG002 -- of the port
        project_id: str | None = None,
    ) -> Sequence[VolumeSnapshot]:
        """See `StorageDriver`; a group snapshot without members, which a killed Cinder may leave, counts as one."""
        projects = () if project_id is None else sorted({project_id, self._cloud.project_id()})
        places = [volumes.in_project(one) for one in projects] or [volumes.EVERYWHERE]
        # The groups first: the members of those that are seen are there by then.
        groups = [one for place in places for one in self._groups.find(snapshot_id, place)]
        snapshots = [one for place in places for one in volumes.copies(self._api, snapshot_id, place)]
        members = {snapshot.get("group_snapshot_id") for snapshot, _ in snapshots}
        empty = [(one, name) for one, name in groups if one["id"] not in members]
        found = [
            *(volumes.as_copy(snapshot, name) for snapshot, name in snapshots if self._is_ours(snapshot, name)),
            *(_as_empty_group(one, name) for one, name in empty if self._is_ours(one, name)),
        ]
        return sorted(found, key=lambda one: one.id)

    def check_restore(self, instance: Instance, copies: Mapping[str, str]) -> Mapping[str, str]:  # noqa: ARG002
        """See `StorageDriver`: the strategy."""

        def strategy(volume_id: str, snapshot_id: str) -> str:
            return self._reverter.check(volume_id, snapshot_id)[2].value

        # First: of a back end that is down nobody can tell by which way it goes.
        self._reverter.require_hosts(list(copies))
        return each(copies, strategy)

    def restore(self, call: Call, instance: Instance, volume_id: str, copy_id: str) -> None:
        """See `StorageDriver`."""
        require_attached(instance, volume_id)
        self._reverter.revert(call, volume_id, copy_id)

    def release(self, call: Call, volume_id: str) -> None:
        """See `StorageDriver`."""
        self._reverter.release(call, volume_id)

    def delete(self, call: Call, copy: CopyReference) -> None:
        """See `StorageDriver`; the members of a group snapshot go together, for Cinder lets none go alone."""
        copy_id = copy.id
        if copy_id.startswith(_EMPTY_GROUP):
            self._groups.delete(call, copy_id.removeprefix(_EMPTY_GROUP))
            return
        path = f"/snapshots/{path_part(copy_id, copy_id)}"
        try:
            self._reverter.forget(call, copy_id)
            try:
                # Nearly always it can go as it is; what keeps it is looked for only where Cinder says that there is.
                self._api.delete(path, call.request_id)
            except (Refused, Conflict):
                group_snapshot_id = self._force(call, copy_id, path)
                if group_snapshot_id is not None:
                    self._groups.delete(call, group_snapshot_id)
                    return
            self._waiting.until(
                call,
                self._timeout,
                f"snapshot {copy_id} to be deleted",
                # Whatever else it is in the end, in error or as it was before, it has not gone.
                lambda: volumes.get_snapshot(self._api, copy_id)["status"] != "deleting" or None,
                self._watch(copy_id),
            )
        except NotFound:
            return
        raise BackendError(f"Cinder could not delete snapshot {copy_id}; its log says why.")

    def _force(self, call: Call, snapshot_id: str, path: str) -> str | None:
        """Delete what has another status, from an earlier deletion or a killed service; or say whose member it is."""
        try:
            snapshot = self._settled(call, snapshot_id)
        except TimedOut:
            snapshot = volumes.get_snapshot(self._api, snapshot_id)
        group_snapshot_id: str | None = snapshot.get("group_snapshot_id")
        if group_snapshot_id is None:
            action: Mapping[str, Any] = {"os-force_delete": {}}
            self._api.act(f"{path}/action", action, call.request_id)
        return group_snapshot_id

    def _is_ours(self, snapshot: Document, name: CopyName) -> bool:
        """Anybody can give a snapshot a name of ours, but only in a project of their own."""
        return name.kind is not CopyKind.SAFETY or volumes.project_of(snapshot) == self._cloud.project_id()

    def _maker(self, name: CopyName, volume: Document) -> Maker:
        if name.kind is CopyKind.SAFETY:
            return Maker(self._api, self._cloud.project_id())
        owner = volumes.project_of(volume)
        return Maker(self._cloud.project(STORAGE, owner), owner)

    def _post(self, call: Call, maker: Maker, name: CopyName, mark: str) -> str:
        body: Mapping[str, Any] = {
            "snapshot": {
                "volume_id": name.volume_id,
                "name": volumes.name_of(name),
                "description": mark,
                "force": True,
            }
        }
        try:
            return str(maker.api.make("/snapshots", documents.NEW_SNAPSHOT, body, call.request_id)["id"])
        except Unavailable:
            # The request may have come through without its reply. By its mark it is this cut's, not an earlier one's.
            for snapshot, found in volumes.copies(self._api, name.snapshot_id, volumes.in_project(maker.project_id)):
                if found == name and snapshot["description"] == mark:
                    return str(snapshot["id"])
            raise

    def _all_cut(
        self, call: Call, snapshot_id: str, owners: Collection[str], made: Sequence[str], described: Sequence[Document]
    ) -> list[Document]:
        """The copies of these ids, in this order, when all are made; each look is one request a project."""
        places = [volumes.in_project(owner) for owner in owners]

        def look() -> list[Document] | None:
            there = [volumes.copies(self._api, snapshot_id, place) for place in places]
            found = {one["id"]: one for some in there for one, _ in some}
            missing = [one for one in made if one not in found]
            if missing:
                raise Damaged(
                    f"Somebody has deleted or renamed snapshots while they were made: {', '.join(missing)}. Repeat it."
                )
            mine = [found[one] for one in made]
            return None if any(one["status"] in _UNSETTLED for one in mine) else mine

        watches = [self._hosts.watch(volume) for volume in described]

        def watch() -> None:
            for one in watches:
                one()

        what = f"{len(made)} snapshots to be made"
        return [_require_cut(one) for one in self._waiting.until(call, self._timeout, what, look, watch)]

    def _settled(self, call: Call, snapshot_id: str) -> Document:
        """The snapshot once Cinder has nothing to do on it; raises `NotFound` when it is gone."""

        def look() -> Document | None:
            snapshot = volumes.get_snapshot(self._api, snapshot_id)
            return None if snapshot["status"] in _UNSETTLED else snapshot

        what = f"snapshot {snapshot_id} to be made"
        return self._waiting.until(call, self._timeout, what, look, self._watch(snapshot_id))

    def _watch(self, snapshot_id: str) -> Callable[[], None]:
        """Raises `ServiceDown` if the service is down that works for a snapshot's volume, which is looked for late."""
        found: list[Callable[[], None]] = []

        def watch() -> None:
            if not found:
                volume_id = volumes.get_snapshot(self._api, snapshot_id)["volume_id"]
                found.append(self._hosts.watch(self._looking.volume(volume_id)))
            found[0]()

        return watch


def _require_cut(snapshot: Document) -> Document:
    if snapshot["status"] not in ("available", "restoring"):
        raise Damaged(f"Cinder could not make snapshot {snapshot['id']}: it is {snapshot['status']}; its log says why.")
    return snapshot


def _as_empty_group(group_snapshot: Document, name: CopyName) -> VolumeSnapshot:
    owner = None if name.kind is CopyKind.SAFETY else volumes.project_of(group_snapshot)
    return VolumeSnapshot(_EMPTY_GROUP + group_snapshot["id"], name, 0, ready=False, project_id=owner)


def _ours(snapshot: Document) -> CopyName:
    name = volumes.parse_name(snapshot)
    if name is None:
        raise Damaged(
            f"Snapshot {snapshot['id']} has been renamed, so that nobody knows what it belongs to; take another one."
        )
    return name


def _require_attached_to(volume: Document, instance_id: str) -> None:
    servers = {attachment["server_id"] for attachment in volume["attachments"]}
    if servers - {instance_id}:
        raise Refused(
            f"Volume {volume['id']} is attached to other servers, too, which would go on writing; detach it there."
        )
    if not servers:
        raise Conflict(f"Volume {volume['id']} is not attached to server {instance_id} any more; attach it again.")
