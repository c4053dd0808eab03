"""The shapes of what the services of a cloud answer, as far as they are looked at; whatever else there is, is kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, NotRequired, TypeVar

from pydantic import AfterValidator, ConfigDict, FailFast, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from stillframe.foreign.replies import Malformed, plain, shaped

_LONGEST: Final = 255


@dataclass(frozen=True, slots=True)
class Shape:
    """What stands below a key of a document, or the document itself where `key` is None."""

    key: str | None
    adapter: TypeAdapter[Any]

    def read(self, document: Any) -> Any:
        """What is asked for; raises `Malformed`."""
        if self.key is None:
            return shaped(self.adapter, document)
        if not isinstance(document, dict) or self.key not in document:
            raise Malformed(f"the answer has no '{self.key}'")
        return shaped(self.adapter, document[self.key])


def moment(text: str) -> datetime:
    """A time of OpenStack's in UTC, without a zone; where the text has none, it is UTC."""
    found = datetime.fromisoformat(text)
    return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found


def _a_moment(text: str) -> str:
    try:
        moment(text)
    except OverflowError:
        raise ValueError("is beyond all times") from None
    return text


def _printable(text: str) -> str:
    return text if text.isprintable() and len(text) <= _LONGEST else plain(text)


# It becomes part of paths.
_Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,255}$")]
_Word = Annotated[str, AfterValidator(_printable)]
_Moment = Annotated[str, AfterValidator(_a_moment)]
_Gigabytes = Annotated[int, Field(ge=0, lt=1 << 32)]
_Count = Annotated[int, Field(ge=-1, lt=1 << 31)]

_T = TypeVar("_T")
_Several = Annotated[list[_T], FailFast()]
_open = with_config(ConfigDict(extra="allow"))


@_open
class _Identified(TypedDict):
    id: _Id


@_open
class _Fault(TypedDict):
    message: NotRequired[_Word]


_Server = TypedDict(
    "_Server",
    {
        "id": _Id,
        "name": str,
        "status": _Word,
        "tenant_id": _Id,
        "created": _Moment,
        "updated": NotRequired[_Moment],
        "metadata": dict[str, str],
        "locked": bool,
        "locked_reason": str | None,
        "fault": NotRequired[_Fault],
        "OS-EXT-STS:task_state": _Word | None,
        "OS-EXT-SRV-ATTR:host": NotRequired[_Word | None],
        "host_status": NotRequired[_Word | None],
        "image": NotRequired[Any],
        "flavor": NotRequired[dict[str, Any]],
        "OS-EXT-SRV-ATTR:root_device_name": NotRequired[_Word | None],
        "os-extended-volumes:volumes_attached": list[_Identified],
    },
)
_open(_Server)


@_open
class _AttachedVolume(TypedDict):
    volumeId: _Id
    device: _Word | None


@_open
class _Action(TypedDict):
    action: str
    request_id: str
    user_id: str | None


@_open
class _Event(TypedDict):
    event: str
    finish_time: NotRequired[_Moment | None]


@_open
class _ActionTold(TypedDict):
    events: NotRequired[_Several[_Event]]


@_open
class _Service(TypedDict):
    binary: _Word
    host: _Word
    state: _Word
    cluster: NotRequired[_Word | None]
    updated_at: NotRequired[_Moment | None]


@_open
class _Attachment(TypedDict):
    server_id: _Id | None
    attachment_id: _Id
    device: _Word | None


_Volume = TypedDict(
    "_Volume",
    {
        "id": _Id,
        "name": str | None,
        "status": _Word,
        "size": _Gigabytes,
        "bootable": _Word,
        "created_at": _Moment,
        "updated_at": NotRequired[_Moment | None],
        "metadata": dict[str, str],
        "attachments": list[_Attachment],
        "encrypted": NotRequired[bool],
        "volume_type": NotRequired[_Word | None],
        "group_id": NotRequired[_Id | None],
        "volume_image_metadata": NotRequired[dict[str, Any] | None],
        "os-vol-host-attr:host": NotRequired[_Word | None],
        "os-vol-tenant-attr:tenant_id": NotRequired[_Id],
    },
)
_open(_Volume)

_Snapshot = TypedDict(
    "_Snapshot",
    {
        "id": _Id,
        "name": str | None,
        "description": str | None,
        "status": _Word,
        "size": _Gigabytes,
        "volume_id": _Id,
        "created_at": _Moment,
        "group_snapshot_id": NotRequired[_Id | None],
        "os-extended-snapshot-attributes:project_id": NotRequired[_Id],
    },
)
_open(_Snapshot)


@_open
class _GroupSnapshot(TypedDict):
    id: _Id
    name: str | None
    description: str | None
    status: _Word
    group_id: _Id
    project_id: NotRequired[_Id]


@_open
class _Group(TypedDict):
    status: _Word
    group_type: _Id
    volumes: list[_Id]


@_open
class _GroupType(TypedDict):
    group_specs: NotRequired[dict[str, Any]]


@_open
class _Quota(TypedDict):
    limit: _Count
    in_use: NotRequired[_Count]
    reserved: NotRequired[_Count]


@_open
class _Capabilities(TypedDict):
    sparse_copy_volume: NotRequired[bool | str | None]
    volume_backend_name: NotRequired[str | None]
    location_info: NotRequired[str | None]


@_open
class _Pool(TypedDict):
    name: str
    capabilities: _Capabilities


@_open
class _Extension(TypedDict):
    alias: str


@_open
class _Image(TypedDict):
    id: _Id
    status: _Word
    name: NotRequired[str | None]
    updated_at: NotRequired[_Moment]
    stillframe_before: NotRequired[str]


@_open
class _Before(TypedDict):
    bootable: _Word
    metadata: dict[str, str]


@_open
class _Named(TypedDict):
    id: NotRequired[str]
    name: NotRequired[str]


@_open
class _Scope(TypedDict):
    project: NotRequired[_Named]


@_open
class _Assignment(TypedDict):
    role: _Named
    scope: _Scope


SERVER: Final = Shape("server", TypeAdapter(_Server))
SERVERS: Final = Shape("servers", TypeAdapter(_Several[_Server]))
ATTACHED_VOLUMES: Final = Shape("volumeAttachments", TypeAdapter(_Several[_AttachedVolume]))
#: Of Nova or of Cinder.
SERVICES: Final = Shape("services", TypeAdapter(_Several[_Service]))
ACTIONS: Final = Shape("instanceActions", TypeAdapter(_Several[_Action]))
ACTION: Final = Shape("instanceAction", TypeAdapter(_ActionTold))
VOLUME: Final = Shape("volume", TypeAdapter(_Volume))
VOLUMES: Final = Shape("volumes", TypeAdapter(_Several[_Volume]))
VOLUME_IDS: Final = Shape("volumes", TypeAdapter(_Several[_Identified]))
SNAPSHOT: Final = Shape("snapshot", TypeAdapter(_Snapshot))
SNAPSHOTS: Final = Shape("snapshots", TypeAdapter(_Several[_Snapshot]))
NEW_SNAPSHOT: Final = Shape("snapshot", TypeAdapter(_Identified))
GROUP: Final = Shape("group", TypeAdapter(_Group))
GROUP_TYPE: Final = Shape("group_type", TypeAdapter(_GroupType))
GROUP_SNAPSHOT: Final = Shape("group_snapshot", TypeAdapter(_GroupSnapshot))
GROUP_SNAPSHOTS: Final = Shape("group_snapshots", TypeAdapter(_Several[_GroupSnapshot]))
NEW_GROUP_SNAPSHOT: Final = Shape("group_snapshot", TypeAdapter(_Identified))
# Besides the quotas there is the project's id.
QUOTAS: Final = Shape("quota_set", TypeAdapter(dict[str, _Quota | _Word]))
POOLS: Final = Shape("pools", TypeAdapter(_Several[_Pool]))
EXTENSIONS: Final = Shape("extensions", TypeAdapter(_Several[_Extension]))
IMAGES: Final = Shape("images", TypeAdapter(_Several[_Image]))
ASSIGNMENTS: Final = Shape("role_assignments", TypeAdapter(_Several[_Assignment]))

#: What a volume was before it was reimaged, from the property of an image.
BEFORE: Final = TypeAdapter(_Before)
#: An image as it is made; it stands in the document itself.
NEW_IMAGE: Final = Shape(None, TypeAdapter(_Image))
