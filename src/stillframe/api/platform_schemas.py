"""Servers and volumes as Nova and Cinder show them, for platforms without either; and the discovery documents."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from stillframe.api.fields import Id, Lenient, Limit, QueryFlag, Reply, Text
from stillframe.api.schemas import Link


class CollectionQuery(Lenient):
    """What a list of servers or volumes may be asked for; other filters are ignored, as Nova does."""

    limit: Limit | None = None
    marker: Id | None = None
    name: Text | None = None
    status: Text | None = None
    all_tenants: QueryFlag = False


class ServerSummary(Reply):
    id: str
    name: str
    links: list[Link]


class VolumeReference(Reply):
    id: str


class ServerView(ServerSummary):
    """A server of Nova's API version 2.1; what this platform does not know is empty or null."""

    status: str
    tenant_id: str
    user_id: str
    metadata: dict[str, str]
    created: str | None
    updated: str | None
    image: str
    flavor: dict[str, Any]
    host_id: str = Field(serialization_alias="hostId")
    addresses: dict[str, Any]
    access_ipv4: str = Field(serialization_alias="accessIPv4")
    access_ipv6: str = Field(serialization_alias="accessIPv6")
    key_name: str | None
    config_drive: str
    progress: int
    disk_config: str = Field(serialization_alias="OS-DCF:diskConfig")
    availability_zone: str = Field(serialization_alias="OS-EXT-AZ:availability_zone")
    task_state: str | None = Field(serialization_alias="OS-EXT-STS:task_state")
    vm_state: str = Field(serialization_alias="OS-EXT-STS:vm_state")
    power_state: int = Field(serialization_alias="OS-EXT-STS:power_state")
    launched_at: str | None = Field(serialization_alias="OS-SRV-USG:launched_at")
    terminated_at: str | None = Field(serialization_alias="OS-SRV-USG:terminated_at")
    volumes_attached: list[VolumeReference] = Field(serialization_alias="os-extended-volumes:volumes_attached")


class ServerReply(Reply):
    server: ServerView


class ServersReply(Reply):
    servers: list[ServerView] | list[ServerSummary]
    servers_links: list[Link] | None = Field(default=None, exclude_if=lambda links: links is None)


class VolumeSummary(Reply):
    id: str
    name: str
    links: list[Link]


class AttachmentView(Reply):
    """Where a volume is attached."""

    id: str
    attachment_id: str
    volume_id: str
    server_id: str
    device: str | None
    host_name: str | None
    attached_at: str | None


class VolumeView(VolumeSummary):
    """A volume of Cinder's API version 3.0; `size` is in GiB, rounded up."""

    description: str | None
    status: str
    size: int
    bootable: str
    encrypted: bool
    multiattach: bool
    availability_zone: str
    volume_type: str | None
    snapshot_id: str | None
    source_volid: str | None
    consistencygroup_id: str | None
    replication_status: str | None
    user_id: str
    created_at: str | None
    updated_at: str | None
    metadata: dict[str, str]
    attachments: list[AttachmentView]
    project_id: str = Field(serialization_alias="os-vol-tenant-attr:tenant_id")
    size_bytes: int = Field(serialization_alias="stillframe:size_bytes")


class VolumeReply(Reply):
    volume: VolumeView


class VolumesReply(Reply):
    volumes: list[VolumeView] | list[VolumeSummary]
    volumes_links: list[Link] | None = Field(default=None, exclude_if=lambda links: links is None)


class ServicesQuery(Lenient):
    """What the list of workers may be asked for, as Cinder's list of services; `service` is the older `binary`."""

    host: Text | None = None
    binary: Text | None = None
    service: Text | None = None


class ServiceView(Reply):
    """A worker as Cinder's `os-services` would show it; times are UTC, by the database's clock.

    `state`: `down` if it has been silent for `[engine] claim_seconds`. `id` and `started_at` are not Cinder's.
    """

    id: str
    binary: str
    host: str
    zone: str
    status: str
    state: str
    updated_at: str
    disabled_reason: str | None
    started_at: str


class ServicesReply(Reply):
    services: list[ServiceView]


class VolumeSnapshotQuery(CollectionQuery):
    """What a list of volume snapshots may be asked for; `name` is that of the instance snapshot."""

    volume_id: Id | None = None


class VolumeSnapshotView(Reply):
    """A volume snapshot of Cinder's API version 3.0; `size` is in GiB, rounded up, and null where it is not known."""

    id: str
    name: str
    description: str
    status: str
    size: int | None
    volume_id: str
    created_at: str | None
    updated_at: str | None
    metadata: dict[str, str]
    user_id: str
    project_id: str = Field(serialization_alias="os-extended-snapshot-attributes:project_id")
    progress: str = Field(serialization_alias="os-extended-snapshot-attributes:progress")
    size_bytes: int | None = Field(serialization_alias="stillframe:size_bytes")


class VolumeSnapshotReply(Reply):
    snapshot: VolumeSnapshotView


class VolumeSnapshotsReply(Reply):
    snapshots: list[VolumeSnapshotView]
    snapshots_links: list[Link] | None = Field(default=None, exclude_if=lambda links: links is None)


class VolumeAttachmentView(Reply):
    """Nova's view of an attached volume, whose id is the attachment's too."""

    id: str
    volume_id: str = Field(serialization_alias="volumeId")
    server_id: str = Field(serialization_alias="serverId")
    device: str | None


class VolumeAttachmentReply(Reply):
    volume_attachment: VolumeAttachmentView = Field(serialization_alias="volumeAttachment")


class VolumeAttachmentsReply(Reply):
    volume_attachments: list[VolumeAttachmentView] = Field(serialization_alias="volumeAttachments")


class MediaType(Reply):
    base: str
    type: str


class Version(Reply):
    """A version of an API, for clients that find their way by it."""

    id: str
    status: str
    version: str
    min_version: str
    updated: str
    links: list[Link]
    media_types: list[MediaType] = Field(serialization_alias="media-types")


class VersionsReply(Reply):
    versions: list[Version]


class VersionReply(Reply):
    version: Version
