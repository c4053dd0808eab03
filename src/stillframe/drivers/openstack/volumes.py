"""Volumes and their snapshots as Cinder describes them, and the names by which our copies are known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, Final

from stillframe.domain.errors import BackendError, NotFound
from stillframe.domain.instance import Volume
from stillframe.domain.snapshot import CopyKind, CopyName, VolumeSnapshot
from stillframe.drivers.openstack import documents
from stillframe.drivers.openstack.batching import Batching
from stillframe.drivers.openstack.cloud import Api, Cloud, path_part

STORAGE: Final = "block-storage"
#: The statuses of a volume while Cinder puts it back.
BUSY: Final = ("reverting", "downloading")
GIB: Final = 1 << 30
# Ids of 36 characters; servers and proxies take addresses of at least 4 KiB.
_IN_AN_ADDRESS: Final = 50
_PROJECTS: Final = 256

_PROJECT_KEYS: Final = ("os-vol-tenant-attr:tenant_id", "os-extended-snapshot-attributes:project_id", "project_id")

# Members of a group snapshot have nothing of ours but the group snapshot's name, so everything stands in the name.
_PREFIX: Final = "stillframe "
_NAME: Final = re.compile(_PREFIX + r"(snapshot|safety) (\S+) (\S+)")

Document = Mapping[str, Any]

#: See `named`.
EVERYWHERE: Final[Mapping[str, str]] = MappingProxyType({})


class Looking:
    """What Cinder says of single volumes now, to an administrator; those who ask at a time share their requests."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._volumes = Batching(self._volume, self._several)
        self._restoring_in = lru_cache(_PROJECTS)(
            lambda project_id: Batching(self._restoring_of, partial(self._restoring_of_several, project_id))
        )

    def volume(self, volume_id: str) -> Document:
        """One volume as it is now; raises `NotFound`."""
        return self.volumes([volume_id])[0]

    def volumes(self, volume_ids: Sequence[str]) -> list[Document]:
        """Volumes as they are now, in this order; raises `NotFound`."""
        return self._volumes.ask(*(path_part(one, one) for one in volume_ids))

    def restoring(self, volume_id: str, project_id: str) -> list[Document]:
        """The snapshots of a project that the volume is being reverted to now; of another's it may tell, too."""
        return self._restoring_in(project_id).ask(volume_id)[0]

    @property
    def _api(self) -> Api:
        return self._cloud.service(STORAGE)

    def _volume(self, volume_id: str) -> Document:
        return get_volume(self._api, volume_id)

    def _several(self, volume_ids: Sequence[str]) -> Mapping[str, Document]:
        found: dict[str, Document] = {}
        for start in range(0, len(volume_ids), _IN_AN_ADDRESS):
            some = list(volume_ids[start : start + _IN_AN_ADDRESS])
            # To administrators Cinder lets any column through, and reads its value as a literal of Python.
            found |= _by_id(self._api.pages("/volumes/detail", documents.VOLUMES, all_tenants="1", id=repr(some)))
        return found

    def _restoring_of(self, volume_id: str) -> list[Document]:
        return list(self._reverting(volume_id=volume_id))

    def _restoring_of_several(self, project_id: str, volume_ids: Sequence[str]) -> Mapping[str, list[Document]]:
        # Cinder cannot be asked for the snapshots of several volumes; but few are restored at a time in a project.
        found: dict[str, list[Document]] = {volume_id: [] for volume_id in volume_ids}
        for snapshot in self._reverting(**in_project(project_id)):
            found.setdefault(snapshot["volume_id"], []).append(snapshot)
        return found

    def _reverting(self, **query: str) -> Iterator[Document]:
        return self._api.pages("/snapshots/detail", documents.SNAPSHOTS, all_tenants="1", status="restoring", **query)


def list_volumes(api: Api, **query: str) -> list[Volume]:
    """The volumes that an identity sees, by name and id."""
    found = [as_volume(volume) for volume in api.pages("/volumes/detail", documents.VOLUMES, **query)]
    return sorted(found, key=lambda one: (one.name, one.id))


def get_volume(api: Api, volume_id: str) -> Document:
    """One volume as Cinder describes it; raises `NotFound`."""
    return _named(api, "volume", volume_id, documents.VOLUME)


def get_snapshot(api: Api, snapshot_id: str) -> Document:
    """One snapshot of a volume as Cinder describes it; raises `NotFound`."""
    return _named(api, "snapshot", snapshot_id, documents.SNAPSHOT)


def _named(api: Api, kind: str, thing_id: str, shape: documents.Shape) -> Document:
    """Whatever Cinder, or a proxy before it, says of what is not there: its id is told."""
    try:
        found: Document = api.get(f"/{kind}s/{path_part(thing_id, thing_id)}", shape)
    except NotFound as error:
        if thing_id in error.message:
            raise
        raise NotFound(f"There is no {kind} {thing_id}: {error.message}") from None
    return found


def snapshots_of(api: Api, volume_id: str) -> list[Document]:
    """All snapshots of a volume, whoever has made them; for an administrator."""
    return list(api.pages("/snapshots/detail", documents.SNAPSHOTS, all_tenants="1", volume_id=volume_id))


def project_of(document: Document) -> str:
    """The project that a volume, a snapshot or a group snapshot belongs to."""
    for key in _PROJECT_KEYS:
        if key in document:
            return str(document[key])
    raise BackendError(f"Cinder does not say whose {document['id']} is; give the service's user the role admin.")


def name_of(name: CopyName) -> str:
    """What a copy, or the group snapshot that it belongs to, is called in Cinder."""
    return f"stillframe {name.kind} {name.snapshot_id} {name.operation_id}"


def parse_name(snapshot: Document) -> CopyName | None:
    """The key that a snapshot, or a group snapshot, was made for, or None if it is none of ours."""
    found = _NAME.fullmatch(snapshot["name"] or "")
    if found is None:
        return None
    source = snapshot["volume_id"] if "volume_id" in snapshot else snapshot["group_id"]
    return CopyName(CopyKind(found[1]), found[2], source, found[3])


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
        created_at=documents.moment(volume["created_at"]),
        metadata=dict(volume["metadata"]),
        # Shown to administrators and services only; its last part is a pool of the back end.
        backend=(volume.get("os-vol-host-attr:host") or "").partition("#")[0] or None,
    )


def copies(api: Api, snapshot_id: str | None, place: Mapping[str, str]) -> list[tuple[Document, CopyName]]:
    """Every copy of ours in a place, those of group snapshots too, and the keys they were made for."""
    found = api.pages("/snapshots/detail", documents.SNAPSHOTS, **named(snapshot_id, place))
    return [(one, name) for one in found if (name := parse_name(one)) is not None and _is_of(name, snapshot_id)]


def named(snapshot_id: str | None, place: Mapping[str, str]) -> dict[str, str]:
    """What asks for the snapshots, or the group snapshots, whose names are like those of an instance snapshot's.

    Cinder has no index of names, so it looks at everything in the `place`: `in_project`, `in_group_snapshot`, or
    `EVERYWHERE`, which is the whole cloud.
    """
    # Names that contain it, since Cinder 3.34 and for an administrator; they are still to be looked at.
    return {"all_tenants": "1", "name~": _PREFIX if snapshot_id is None else snapshot_id, **place}


def in_project(project_id: str) -> Mapping[str, str]:
    """See `named`; to administrators who ask for all projects Cinder lets any column through, and this is indexed."""
    return {"project_id": project_id}


def in_group_snapshot(group_snapshot_id: str) -> Mapping[str, str]:
    """See `in_project`; of snapshots, not of group snapshots."""
    return {"group_snapshot_id": group_snapshot_id}


def _is_of(name: CopyName, snapshot_id: str | None) -> bool:
    return snapshot_id in (None, name.snapshot_id)


def _by_id(found: Iterable[Document]) -> dict[str, Document]:
    return {one["id"]: one for one in found}
