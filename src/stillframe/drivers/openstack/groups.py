"""Groups of volumes whose back end cuts all of them at one instant."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from stillframe.domain.errors import BackendError, Conflict, Damaged, NotFound, Refused
from stillframe.domain.snapshot import CopyKind, CopyName
from stillframe.drivers.call import Call
from stillframe.drivers.openstack import volumes
from stillframe.drivers.openstack.cloud import Api, Cloud
from stillframe.drivers.openstack.volumes import STORAGE, Document
from stillframe.drivers.openstack.waiting import Waiting

# https://docs.openstack.org/cinder/latest/admin/groups.html
_CONSISTENT: Final = "consistent_group_snapshot_enabled"


class ConsistentGroups:
    """Group snapshots of groups whose type promises one instant."""

    def __init__(self, cloud: Cloud, waiting: Waiting, patience: float) -> None:
        self._cloud = cloud
        self._waiting = waiting
        self._patience = patience

    @property
    def _api(self) -> Api:
        return self._cloud.service(STORAGE)

    def of_exactly(self, described: Sequence[Document]) -> str | None:
        """The consistent group that these volumes are all the members of, or None."""
        groups = {volume.get("group_id") for volume in described}
        group_id = groups.pop() if len(groups) == 1 else None
        if group_id is None:
            return None
        group = self._api.get(f"/groups/{group_id}", list_volume="true")["group"]
        if set(group["volumes"]) != {volume["id"] for volume in described} or group["status"] != "available":
            return None
        kind = self._api.get(f"/group_types/{group['group_type']}")["group_type"]
        return str(group_id) if kind.get("group_specs", {}).get(_CONSISTENT) == "<is> True" else None

    def cut(self, call: Call, group_id: str, names: Sequence[CopyName]) -> list[Document]:
        """Cut all members at one instant; one snapshot a name, in their order."""
        owner = volumes.project_of(volumes.get_volume(self._api, names[0].volume_id))
        api = self._api if names[0].kind is CopyKind.SAFETY else self._cloud.project(STORAGE, owner)
        name = volumes.name_of(names[0])
        body = {"group_snapshot": {"group_id": group_id, "name": name}}
        group_snapshot_id = api.post("/group_snapshots", body, call.request_id)["group_snapshot"]["id"]
        status = self._settled(call, group_snapshot_id)
        if status != "available":
            raise Damaged(f"Cinder could not make group snapshot {group_snapshot_id}: it is {status}.")
        members = {
            snapshot["volume_id"]: snapshot
            for snapshot in self._api.pages("/snapshots/detail", "snapshots", all_tenants="1", name=name)
            if snapshot["group_snapshot_id"] == group_snapshot_id
        }
        missing = [one.volume_id for one in names if one.volume_id not in members]
        if missing:
            raise Damaged(f"Group snapshot {group_snapshot_id} has no snapshot of {', '.join(missing)}.")
        return [members[one.volume_id] for one in names]

    def delete(self, call: Call, group_snapshot_id: str) -> None:
        """Delete a group snapshot with its members; one that is gone already is fine."""
        try:
            if self._settled(call, group_snapshot_id) not in ("available", "error"):
                reset = {"reset_status": {"status": "error"}}
                self._api.post(f"/group_snapshots/{group_snapshot_id}/action", reset, call.request_id)
            # Another of its members may have come first; whether it goes is seen below.
            with suppress(Conflict, Refused):
                self._api.delete(f"/group_snapshots/{group_snapshot_id}", call.request_id)
            status = self._settled(call, group_snapshot_id)
        except NotFound:
            return
        if status == "deleted":
            # For a moment it is still told of.
            return
        raise BackendError(f"Cinder could not delete group snapshot {group_snapshot_id}: it is {status}.")

    def _settled(self, call: Call, group_snapshot_id: str) -> str:
        def look() -> str | None:
            status = str(self._api.get(f"/group_snapshots/{group_snapshot_id}")["group_snapshot"]["status"])
            return None if status in ("creating", "deleting") else status

        return self._waiting.until(call, self._patience, f"group snapshot {group_snapshot_id}", look)
