"""Servers, for clients that look around where no Nova does the talking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stillframe.api import platform_schemas as schemas
from stillframe.api.listing import cut_page, page_limit
from stillframe.api.schemas import Link
from stillframe.domain.errors import NotFound
from stillframe.domain.instance import Instance, PowerState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stillframe.api.exchange import Exchange

_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"

# Nova's status, vm_state and power_state.
_STATES: Final = {
    PowerState.ACTIVE: ("ACTIVE", "active", 1),
    PowerState.PAUSED: ("PAUSED", "paused", 3),
    PowerState.SHUTOFF: ("SHUTOFF", "stopped", 4),
    PowerState.ERROR: ("ERROR", "error", 0),
}


def list_summaries(exchange: Exchange) -> schemas.ServersReply:
    page, links = _page(exchange)
    return schemas.ServersReply(servers=[_summary(exchange, one) for one in page], servers_links=links)


def list_details(exchange: Exchange) -> schemas.ServersReply:
    # In this order, as for one server.
    task_state = exchange.services.instances.task_states()
    page, links = _page(exchange)
    return schemas.ServersReply(servers=[_view(exchange, one, task_state(one.id)) for one in page], servers_links=links)


def show(exchange: Exchange) -> schemas.ServerReply:
    instance_id = exchange.ids["server_id"]
    # In this order: who sees that nothing is being done any more also sees what came of it.
    task_state = exchange.services.instances.task_state(instance_id)
    instance = exchange.services.instances.get_instance(exchange.caller, instance_id)
    return schemas.ServerReply(server=_view(exchange, instance, task_state))


def list_attachments(exchange: Exchange) -> schemas.VolumeAttachmentsReply:
    return schemas.VolumeAttachmentsReply(volume_attachments=_attachments(exchange))


def show_attachment(exchange: Exchange) -> schemas.VolumeAttachmentReply:
    volume_id = exchange.ids["volume_id"]
    for one in _attachments(exchange):
        if one.volume_id == volume_id:
            return schemas.VolumeAttachmentReply(volume_attachment=one)
    raise NotFound(f"Volume {volume_id} is not attached to instance {exchange.ids['server_id']}.")


def start(exchange: Exchange) -> None:
    exchange.services.instances.start(exchange.caller, exchange.ids["server_id"])


def stop(exchange: Exchange) -> None:
    exchange.services.instances.stop(exchange.caller, exchange.ids["server_id"])


def _attachments(exchange: Exchange) -> list[schemas.VolumeAttachmentView]:
    instance = exchange.services.instances.get_instance(exchange.caller, exchange.ids["server_id"])
    return [
        schemas.VolumeAttachmentView(
            id=one.volume_id, volume_id=one.volume_id, server_id=instance.id, device=one.device
        )
        for one in instance.attachments
    ]


def _page(exchange: Exchange) -> tuple[Sequence[Instance], list[Link] | None]:
    query: schemas.CollectionQuery = exchange.query
    found = [
        one
        for one in exchange.services.instances.list_instances(exchange.caller, all_projects=query.all_tenants)
        if query.name is None or query.name in one.name
        if query.status is None or query.status.upper() == _STATES[one.power_state][0]
    ]
    page, more = cut_page(found, page_limit(query.limit, exchange.services.max_limit), query.marker)
    links = [Link(rel="next", href=exchange.links.next_page(page[-1].id))] if page and more else None
    return page, links


def _links(exchange: Exchange, instance: Instance) -> list[Link]:
    path = f"/servers/{instance.id}"
    project_id = exchange.caller.project_id
    return [
        Link(rel="self", href=exchange.links.compute(project_id) + path),
        Link(rel="bookmark", href=exchange.links.compute(project_id, version="") + path),
    ]


def _summary(exchange: Exchange, instance: Instance) -> schemas.ServerSummary:
    return schemas.ServerSummary(id=instance.id, name=instance.name, links=_links(exchange, instance))


def _view(exchange: Exchange, instance: Instance, task_state: str | None) -> schemas.ServerView:
    status, vm_state, power_state = _STATES[instance.power_state]
    created = None if instance.created_at is None else instance.created_at.strftime(_TIME)
    known = {
        "id": instance.id,
        "name": instance.name,
        "links": _links(exchange, instance),
        "status": status,
        "tenant_id": instance.project_id,
        "metadata": instance.metadata,
        "created": created,
        "updated": created,
        "vm_state": vm_state,
        "task_state": task_state,
        "power_state": power_state,
        "volumes_attached": [schemas.VolumeReference(id=volume_id) for volume_id in instance.volume_ids],
    }
    return schemas.ServerView.model_validate({**_UNKNOWN, **known})


# Clients of Nova expect these keys; an instance that boots from a volume has no image in Nova either.
_UNKNOWN: Final = {
    "user_id": "",
    "image": "",
    "flavor": {"id": "", "links": []},
    "host_id": "",
    "addresses": {},
    "access_ipv4": "",
    "access_ipv6": "",
    "key_name": None,
    "config_drive": "",
    "progress": 0,
    "disk_config": "MANUAL",
    "availability_zone": "",
    "launched_at": None,
    "terminated_at": None,
}
