"""Volume snapshots, for clients that look up the ids in an instance snapshot's maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stillframe.api import platform_schemas as schemas
from stillframe.api.listing import cut_page, page_limit
from stillframe.api.schemas import Link
from stillframe.domain.snapshot import CopyKind
from stillframe.domain.status import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stillframe.api.exchange import Exchange
    from stillframe.service.volume_snapshots import Holdings, RecordedCopy

_TIME: Final = "%Y-%m-%dT%H:%M:%S.%f"
_GIB: Final = 1 << 30
# In Cinder's words; in any other status of the instance snapshot its volume snapshots are as usable as they were.
_STATUSES: Final = {Status.DELETING: "deleting", Status.ERROR_DELETING: "error_deleting", Status.ERROR: "error"}


def list_page(exchange: Exchange) -> schemas.VolumeSnapshotsReply:
    query: schemas.VolumeSnapshotQuery = exchange.query
    service = exchange.services.volume_snapshots
    found: Sequence[RecordedCopy] = [
        one
        for one in service.list(exchange.caller, volume_id=query.volume_id, all_projects=query.all_tenants)
        if query.name in (None, one.snapshot.name)
    ]
    if query.status is not None:
        holdings = service.holdings(found)
        found = [one for one in found if _status(one, holdings) == query.status]
    page, more = cut_page(found, page_limit(query.limit, exchange.services.max_limit), query.marker)
    holdings = service.holdings(page)
    links = [Link(rel="next", href=exchange.links.next_page(page[-1].id))] if page and more else None
    return schemas.VolumeSnapshotsReply(snapshots=[_view(one, holdings) for one in page], snapshots_links=links)


def show(exchange: Exchange) -> schemas.VolumeSnapshotReply:
    service = exchange.services.volume_snapshots
    copy = service.show(exchange.caller, exchange.ids["snapshot_id"])
    return schemas.VolumeSnapshotReply(snapshot=_view(copy, service.holdings([copy])))


def _status(copy: RecordedCopy, holdings: Holdings) -> str:
    held = holdings.found.get(copy.id)
    if copy.snapshot.status in _STATUSES:
        return _STATUSES[copy.snapshot.status]
    if held is None and holdings.complete:
        return "error"
    return "available" if held is None or held.ready else "creating"


def _view(copy: RecordedCopy, holdings: Holdings) -> schemas.VolumeSnapshotView:
    snapshot, held, status = copy.snapshot, holdings.found.get(copy.id), _status(copy, holdings)
    size = None if held is None else held.size
    of_the_snapshot = copy.kind is CopyKind.SNAPSHOT
    return schemas.VolumeSnapshotView(
        id=copy.id,
        name=snapshot.name,
        description=snapshot.description,
        status=status,
        # As of a volume: upwards, so that a client that makes room for it makes enough.
        size=None if size is None else -(-size // _GIB),
        volume_id=copy.volume_id,
        # When a safety copy was taken is in no record.
        created_at=snapshot.created_at.strftime(_TIME) if of_the_snapshot else None,
        updated_at=None,
        metadata={"instance_snapshot_id": snapshot.id, "kind": copy.kind.value},
        user_id=snapshot.user_id,
        project_id=snapshot.project_id,
        progress="100%" if status == "available" else "0%",
        size_bytes=size,
    )
