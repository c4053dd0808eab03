"""Volumes and their snapshots as Cinder describes them, and the names by which our copies are known."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from stillframe.domain.instance import Volume
from stillframe.domain.snapshot import CopyKind, CopyName, VolumeSnapshot
from stillframe.drivers.openstack.cloud import Api, path_part

STORAGE: Final = "block-storage"
GIB: Final = 1 << 30
SNAPSHOT_KEY: Final = "stillframe_snapshot"

_VOLUME_PROJECT: Final = "os-vol-tenant-attr:tenant_id"
_SNAPSHOT_PROJECT: Final = "os-extended-snapshot-attributes:project_id"

# Members of a group snapshot have nothing of ours but the group snapshot's name, so everything stands in the name.
_NAME: Final = re.compile(r"stillframe (snapshot|safety) (\S+) (\S+)")

Document = Mapping[str, Any]


def list_volumes(api: Api, **query: str) -> list[Volume]:
    """The volumes that an identity sees, by name and id."""
    found = [as_volume(volume) for volume in api.pages("/volumes/detail", "volumes", **query)]
    return sorted(found, key=lambda one: (one.name, one.id))


def get_volume(api: Api, volume_id: str) -> Document:
    """One volume as Cinder describes it; raises `NotFound`."""
    found: Document = api.get(f"/volumes/{path_part(volume_id, volume_id)}")["volume"]
    return found


def get_snapshot(api: Api, snapshot_id: str) -> Document:
    """One snapshot of a volume as Cinder describes it; raises `NotFound`."""
    found: Document = api.get(f"/snapshots/{path_part(snapshot_id, snapshot_id)}")["snapshot"]
    return found


def snapshots_of(api: Api, volume_id: str) -> list[Document]:
    """All snapshots of a volume, whoever has made them; for an administrator."""
    return list(api.pages("/snapshots/detail", "snapshots", all_tenants="1", volume_id=volume_id))


def project_of(document: Document) -> str:
    """The project that a volume or snapshot belongs to."""
    return str(document[_VOLUME_PROJECT if _VOLUME_PROJECT in document else _SNAPSHOT_PROJECT])


def name_of(name: CopyName) -> str:
    """What a copy, or the group snapshot that it belongs to, is called in Cinder."""
    return f"stillframe {name.kind} {name.snapshot_id} {name.operation_id}"


def parse_name(snapshot: Document) -> CopyName | None:
    """The key that a snapshot was made for, or None if it is none of ours."""
    found = _NAME.fullmatch(snapshot["name"] or "")
    if found is None:
        return None
    return CopyName(CopyKind(found[1]), found[2], snapshot["volume_id"], found[3])


def as_copy(snapshot: Document, name: CopyName) -> VolumeSnapshot:
    """A snapshot of ours in the words of the port."""
    ready = snapshot["status"] in ("available", "restoring")
    owner = None if name.kind is CopyKind.SAFETY else project_of(snapshot)
    return VolumeSnapshot(snapshot["id"], name, snapshot["size"] * GIB, ready=ready, project_id=owner)


def as_volume(volume: Document) -> Volume:
    """A volume in the words of the domain; one that is attached more than once shows its first attachment."""
    attached = next(iter(volume["attachments"]), None)
    return Volume(
        id=volume["id"],
        project_id=project_of(volume),
        name=volume["name"] or "",
        size=volume["size"] * GIB,
        status=volume["status"],
        bootable=volume["bootable"] == "true",
        instance_id=attached and attached["server_id"],
        device=attached and attached["device"],
        created_at=moment(volume["created_at"]),
        metadata=dict(volume["metadata"]),
        # Shown to administrators and services only; its last part is a pool of the back end.
        backend=(volume.get("os-vol-host-attr:host") or "").partition("#")[0] or None,
    )


def moment(text: str) -> datetime:
    """A time of Cinder's, which is UTC without a zone."""
    found = datetime.fromisoformat(text)
    return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found


def copies(api: Api, snapshot_id: str | None) -> Iterator[tuple[Document, CopyName]]:
    """Every copy of ours, those of group snapshots too, and the keys they were made for."""
    query = {"all_tenants": "1"}
    if snapshot_id is not None:
        # Cinder reads this as a literal of Python.
        alone = query | {"metadata": repr({SNAPSHOT_KEY: snapshot_id})}
        groups = api.pages("/group_snapshots/detail", "group_snapshots", **query)
        names = {group["name"] for group in groups if f" {snapshot_id} " in (group["name"] or "")}
        queries = [alone, *(query | {"name": name} for name in sorted(names))]
    else:
        queries = [query]
    seen = set()
    for one in queries:
        for snapshot in api.pages("/snapshots/detail", "snapshots", **one):
            name = parse_name(snapshot)
            if name is not None and snapshot["id"] not in seen:
                seen.add(snapshot["id"])
                yield snapshot, name
