"""Groups of volumes whose back end cuts all of them at one instant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from stillframe.domain.errors import BackendError, Conflict, Damaged, NotFound, Refused, Unavailable
from stillframe.domain.snapshot import CopyName
from stillframe.drivers.call import Call
from stillframe.drivers.openstack import documents, volumes
from stillframe.drivers.openstack.cloud import Api, Cloud
from stillframe.drivers.openstack.volumes import STORAGE, Document
from stillframe.drivers.openstack.waiting import TimedOut, Waiting

# https://docs.openstack.org/cinder/latest/admin/groups.html
_CONSISTENT: Final = "consistent_group_snapshot_enabled"


@dataclass(frozen=True, slots=True)
class Maker:
    """On whose behalf a copy is made, and the project that it lies in then."""

    api: Api
    project_id: str


class ConsistentGroups:
    """Group snapshots of groups whose type promises one instant."""

    def __init__(self, cloud: Cloud, waiting: Waiting, timeout: float) -> None:
        self._cloud = cloud
        self._waiting = waiting
        self._timeout = timeout

    @property
    def _api(self) -> Api:
        return self._cloud.service(STORAGE)

    def of_exactly(self, described: Sequence[Document]) -> str | None:
        """The consistent group that these volumes are all the members of, or None."""
        groups = {volume.get("group_id") for volume in described}
        group_id = groups.pop() if len(groups) == 1 else None
        if group_id is None:
            return None
        group = self._api.get(f"/groups/{group_id}", documents.GROUP, list_volume="true")
        if set(group["volumes"]) != {volume["id"] for volume in described} or group["status"] != "available":
            return None
        kind = self._api.get(f"/group_types/{group['group_type']}", documents.GROUP_TYPE)
        return str(group_id) if kind.get("group_specs", {}).get(_CONSISTENT) == "<is> True" else None

    def cut(self, call: Call, maker: Maker, group_id: str, names: Sequence[CopyName], mark: str) -> list[Document]:
        """Cut all members at one instant on somebody's behalf; one snapshot a name, in their order.

        `mark` is of this cut alone, and stands in the description.
        """
        body = {"group_id": group_id, "name": volumes.name_of(names[0]), "description": mark}
        try:
            asked = {"group_snapshot": body}
            made = maker.api.make("/group_snapshots", documents.NEW_GROUP_SNAPSHOT, asked, call.request_id)["id"]
        except Unavailable:
            # The request may have come through without its reply.
            there = self._named(names[0].snapshot_id, volumes.in_project(maker.project_id))
            made = next((one["id"] for one in there if one["description"] == mark), None)
            if made is None:
                raise
        status = self._settled(call, made)
        if status != "available":
            raise Damaged(f"Cinder could not make group snapshot {made}: it is {status}; its log says why.")
        found = volumes.copies(self._api, names[0].snapshot_id, volumes.in_group_snapshot(made))
        members = {one["volume_id"]: one for one, _ in found if one.get("group_snapshot_id") == made}
        missing = [one.volume_id for one in names if one.volume_id not in members]
        if missing:
            raise Damaged(f"Group snapshot {made} has no snapshot of {', '.join(missing)}; take it again.")
        return [members[one.volume_id] for one in names]

    def find(self, snapshot_id: str | None, place: Mapping[str, str]) -> list[tuple[Document, CopyName]]:
        """Every group snapshot of ours in a place, see `named`, and the keys they were made for, of their groups."""
        found = [(one, volumes.parse_name(one)) for one in self._named(snapshot_id, place)]
        return [(one, name) for one, name in found if name is not None and snapshot_id in (None, name.snapshot_id)]

    def delete(self, call: Call, group_snapshot_id: str) -> None:
        """Delete a group snapshot with its members; one that is gone already is fine."""
        try:
            try:
                status = self._settled(call, group_snapshot_id)
            except TimedOut:
                # Lost with the service that was at it.
                status = "lost"
            if status not in ("available", "error"):
                reset = {"reset_status": {"status": "error"}}
                self._api.act(f"/group_snapshots/{group_snapshot_id}/action", reset, call.request_id)
            # Another of its members may have come first; whether it goes is seen below.
            with suppress(Conflict, Refused):
                self._api.delete(f"/group_snapshots/{group_snapshot_id}", call.request_id)
            status = self._settled(call, group_snapshot_id)
        except NotFound:
            return
        if status == "deleted":
            # For a moment it is still told of.
            return
        raise BackendError(
            f"Cinder could not delete group snapshot {group_snapshot_id}: it is {status}; its log says why."
        )

    def _named(self, snapshot_id: str | None, place: Mapping[str, str]) -> list[Document]:
        query = volumes.named(snapshot_id, place)
        return list(self._api.pages("/group_snapshots/detail", documents.GROUP_SNAPSHOTS, **query))

    def _settled(self, call: Call, group_snapshot_id: str) -> str:
        def look() -> str | None:
            path = f"/group_snapshots/{group_snapshot_id}"
            status = str(self._api.get(path, documents.GROUP_SNAPSHOT)["status"])
            return None if status in ("creating", "deleting") else status

        return self._waiting.until(call, self._timeout, f"group snapshot {group_snapshot_id}", look)
