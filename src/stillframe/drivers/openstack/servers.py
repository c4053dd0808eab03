"""What Nova's documents say of a server: its state, whether it is still, what it waits for, and whose it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from stillframe.domain.instance import Attachment, CinderSource, Instance, PowerState
from stillframe.drivers.openstack import documents
from stillframe.drivers.openstack.cloud import Api, path_part

#: What a lock is made with that is our fence; the id of the instance snapshot follows.
REASON: Final = "stillframe: restoring instance snapshot "
_STATES: Final = {
    "SHUTOFF": PowerState.SHUTOFF,
    "PAUSED": PowerState.PAUSED,
    "SUSPENDED": PowerState.PAUSED,
    "ERROR": PowerState.ERROR,
}
# Its guest does nothing in these, whoever has brought that about.
_STILL: Final = ("SHUTOFF", "PAUSED", "SUSPENDED")
# What keeps a server from being switched off until somebody has ended it, and how that is done.
_TO_END_FIRST: Final[Mapping[str, str]] = {
    "RESCUE": "unrescue it first (openstack server unrescue)",
    "VERIFY_RESIZE": "confirm or revert its resize first (openstack server resize confirm, or revert)",
    "SHELVED": "unshelve it first (openstack server unshelve)",
    "SHELVED_OFFLOADED": "unshelve it first (openstack server unshelve)",
    "SOFT_DELETED": "restore it first (openstack server restore)",
    "DELETED": "it has no volumes any more",
}
# These come to their end by themselves and soon, at a server that is up or off then.
_PASSING: Final = ("SHUTOFF", "REBOOT", "HARD_REBOOT", "PASSWORD")
#: What brings a server nearer to being off, by its status; Nova's own stop is graceful, then hard.
TO_STOP: Final[Mapping[str, Mapping[str, Any]]] = {
    "ACTIVE": {"os-stop": None},
    "ERROR": {"os-stop": None},
    "PAUSED": {"unpause": None},
    "SUSPENDED": {"resume": None},
}


def list_servers(api: Api, **query: str) -> list[Instance]:
    """The servers that an identity sees, by name and id; their devices are not known."""
    found = [_instance(server, _listed(server)) for server in api.pages("/servers/detail", documents.SERVERS, **query)]
    return sorted(found, key=lambda one: (one.name, one.id))


def get_server(api: Api, instance_id: str) -> Instance:
    """One server that an identity sees; raises `NotFound`."""
    path = "/servers/" + path_part(instance_id, f"Instance {instance_id}")
    server = api.get(path, documents.SERVER)
    attachments = api.get(f"{path}/os-volume_attachments", documents.ATTACHED_VOLUMES)
    root = server.get("OS-EXT-SRV-ATTR:root_device_name")
    ordered = sorted(attachments, key=lambda one: (one["device"] != root, one["device"] or ""))
    # Only administrators are told the root device; Nova gives it the first name.
    return _instance(
        server,
        tuple(
            Attachment(one["volumeId"], one["device"] or "", CinderSource(), bootable=number == 0)
            for number, one in enumerate(ordered)
        ),
    )


def _listed(server: Mapping[str, Any]) -> tuple[Attachment, ...]:
    return tuple(Attachment(one["id"], "", CinderSource()) for one in server["os-extended-volumes:volumes_attached"])


def _instance(server: Mapping[str, Any], attachments: tuple[Attachment, ...]) -> Instance:
    return Instance(
        id=server["id"],
        project_id=server["tenant_id"],
        name=server["name"],
        power_state=power_state(server),
        attachments=attachments,
        created_at=documents.moment(server["created"]),
        metadata=dict(server["metadata"]),
        locked=bool(server["locked"]) and fence_owner(server) is None,
        unsettled=unsettled(server),
        local_disks=tuple(_local_disks(server)),
        # Shown to administrators only, unless the operator's policy says otherwise.
        host=server.get("OS-EXT-SRV-ATTR:host"),
    )


def _local_disks(server: Mapping[str, Any]) -> Iterator[str]:
    """The disks that lie on the compute host: a root made of an image, and what the flavor adds."""
    if server.get("image"):
        yield "root_disk"
    flavor = server.get("flavor") or {}
    for kind in ("ephemeral", "swap"):
        if flavor.get(kind):
            yield f"{kind}_disk"


def unsettled(server: Mapping[str, Any]) -> str | None:
    """Why a server cannot be shut down before somebody, or Nova, has ended something; None if it can, or is off."""
    status = server["status"]
    return (
        None if status in TO_STOP or status in _PASSING else f"Server {server['id']} is {status}: {what_first(server)}."
    )


def what_first(server: Mapping[str, Any]) -> str:
    """What has to be done, or waited for, before a server can be used."""
    return _TO_END_FIRST.get(server["status"], "wait until Nova is done with that")


def power_state(server: Mapping[str, Any]) -> PowerState:
    """The present state, by what Nova says."""
    state = _STATES.get(server["status"], PowerState.ACTIVE)
    # One that is off and has something to do may be on its way up.
    up = state is PowerState.SHUTOFF and server["OS-EXT-STS:task_state"] is not None
    return PowerState.ACTIVE if up else state


def is_settled(server: Mapping[str, Any], status: str) -> bool:
    """Whether a server has this status, and nothing goes on that changes it."""
    return bool(server["status"] == status and server["OS-EXT-STS:task_state"] is None)


def is_still(server: Mapping[str, Any]) -> bool:
    """Whether its guest does nothing, and nothing goes on that lets it."""
    return server["status"] in _STILL and server["OS-EXT-STS:task_state"] is None


def why_not_paused(server: Mapping[str, Any]) -> str:
    """Why one that `can_be_paused` is not true of was not paused."""
    if len(server["os-extended-volumes:volumes_attached"]) <= 1:
        return "the server has one volume only and was not paused; Nova cannot freeze a guest's file systems"
    if server["locked"]:
        return "the server is locked, so that it was not paused"
    return f"the server was {server['status']} and busy or not one that can be paused"


def can_be_paused(server: Mapping[str, Any]) -> bool:
    """One that runs, that nobody has locked, and that has several volumes: one alone is of one instant anyway."""
    return (
        is_settled(server, "ACTIVE")
        and not server["locked"]
        and len(server["os-extended-volumes:volumes_attached"]) > 1
    )


def fence_owner(server: Mapping[str, Any]) -> str | None:
    """The instance snapshot that a server is locked for, or None."""
    reason = server["locked_reason"] or ""
    return reason.removeprefix(REASON) if server["locked"] and reason.startswith(REASON) else None
