"""Volumes, for clients that look around where no Cinder does the talking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stillframe.api import platform_schemas as schemas
from stillframe.api.listing import cut_page, page_limit
from stillframe.api.schemas import Link

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stillframe.api.exchange import Exchange
    from stillframe.domain.instance import Volume

_TIME: Final = "%Y-%m-%dT%H:%M:%S.%f"
_GIB: Final = 1 << 30


def list_summaries(exchange: Exchange) -> schemas.VolumesReply:
    page, links = _page(exchange)
    summaries = [schemas.VolumeSummary(id=one.id, name=one.name, links=_links(exchange, one)) for one in page]
    return schemas.VolumesReply(volumes=summaries, volumes_links=links)


def list_details(exchange: Exchange) -> schemas.VolumesReply:
    page, links = _page(exchange)
    return schemas.VolumesReply(volumes=[_view(exchange, one) for one in page], volumes_links=links)


def show(exchange: Exchange) -> schemas.VolumeReply:
    volume = exchange.services.instances.get_volume(exchange.caller, exchange.ids["volume_id"])
    return schemas.VolumeReply(volume=_view(exchange, volume))


def _page(exchange: Exchange) -> tuple[Sequence[Volume], list[Link] | None]:
    query: schemas.CollectionQuery = exchange.query
    found = [
        one
        for one in exchange.services.instances.list_volumes(exchange.caller, all_projects=query.all_tenants)
        if query.name in (None, one.name)
        if query.status in (None, one.status)
    ]
    page, more = cut_page(found, page_limit(query.limit, exchange.services.max_limit), query.marker)
    links = [Link(rel="next", href=exchange.links.next_page(page[-1].id))] if page and more else None
    return page, links


def _links(exchange: Exchange, volume: Volume) -> list[Link]:
    path = f"/volumes/{volume.id}"
    project_id = exchange.caller.project_id
    return [
        Link(rel="self", href=exchange.links.volume(project_id) + path),
        Link(rel="bookmark", href=exchange.links.volume(project_id, version="") + path),
    ]


def _view(exchange: Exchange, volume: Volume) -> schemas.VolumeView:
    created = None if volume.created_at is None else volume.created_at.strftime(_TIME)
    known = {
        "id": volume.id,
        "name": volume.name,
        "links": _links(exchange, volume),
        "status": volume.status,
        # Upwards: Cinder counts whole GiB, and a client that makes room for less could not hold the volume.
        "size": -(-volume.size // _GIB),
        "bootable": "true" if volume.bootable else "false",
        "created_at": created,
        "updated_at": created,
        "metadata": {**volume.metadata, **_boot_mark(volume)},
        "attachments": _attachments(volume),
        "project_id": volume.project_id,
        "size_bytes": volume.size,
    }
    return schemas.VolumeView.model_validate({**_UNKNOWN, **known})


def _boot_mark(volume: Volume) -> dict[str, str]:
    """As PowerVC marks the volumes that an instance boots from."""
    return {"is_boot_volume": "True"} if volume.bootable and volume.instance_id is not None else {}


def _attachments(volume: Volume) -> list[schemas.AttachmentView]:
    if volume.instance_id is None:
        return []
    attachment = schemas.AttachmentView(
        id=volume.id,
        # A volume is attached once here, so that its own id tells its attachment apart.
        attachment_id=volume.id,
        volume_id=volume.id,
        server_id=volume.instance_id,
        device=volume.device,
        host_name=None,
        attached_at=None,
    )
    return [attachment]


# Clients of Cinder expect these keys.
_UNKNOWN: Final = {
    "description": None,
    "encrypted": False,
    "multiattach": False,
    "availability_zone": "",
    "volume_type": None,
    "snapshot_id": None,
    "source_volid": None,
    "consistencygroup_id": None,
    "replication_status": None,
    "user_id": "",
}
