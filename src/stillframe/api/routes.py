"""The one route table: the routing and the OpenAPI document are made from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel

from stillframe import paths
from stillframe.api import discovery, platform_schemas, schemas, servers, snapshots, volume_snapshots, volumes, workers
from stillframe.api.exchange import Exchange
from stillframe.paths import CINDER, NOVA

if TYPE_CHECKING:
    from stillframe.api.fields import Strict

Handler = Callable[[Exchange], BaseModel | None]


@dataclass(frozen=True, slots=True)
class Action:
    """One key that a body may have, with what it leads to; `reply` None stands for an empty one."""

    name: str
    summary: str
    body: type[Strict]
    handler: Handler
    status: int
    reply: type[BaseModel] | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A method of a resource: either with a handler, or with actions that its body chooses from.

    A route without a `query` model ignores the query. `public` ones need no credentials.
    """

    method: str
    template: str
    summary: str
    handler: Handler | None = None
    reply: type[BaseModel] | None = None
    status: int = 200
    query: type[BaseModel] | None = None
    actions: tuple[Action, ...] = ()
    public: bool = False

    def forms(self) -> Iterator[str]:
        """Every path it is served at: with and without the service's prefix, and with and without the project."""
        yield from paths.forms(self.template)


_SERVER_ACTIONS: Final = (
    Action(
        paths.VM_SNAPSHOT,
        "Take a snapshot",
        schemas.VmSnapshot,
        snapshots.create,
        status=200,
        reply=schemas.CreateReply,
    ),
    Action(
        paths.VM_RESTORE,
        "Restore, retry or roll back",
        schemas.VmRestore,
        snapshots.restore,
        status=202,
        reply=schemas.TaskReply,
    ),
    Action("os-start", "Start", schemas.Nothing, servers.start, status=202),
    Action("os-stop", "Shut down", schemas.Nothing, servers.stop, status=202),
)
_VOLUME_ACTIONS: Final = (
    Action(
        paths.COPY_PROGRESS,
        "Show the FlashCopy mappings",
        schemas.CopyProgress,
        snapshots.copy_progress,
        status=202,
        reply=schemas.CopyDetailsReply,
    ),
)
_UPDATES: Final = (
    Action(
        "instance-snapshot",
        "Change name or description",
        schemas.UpdateSnapshot,
        snapshots.update,
        status=200,
        reply=schemas.UpdateReply,
    ),
)


def _get(
    template: str, summary: str, handler: Handler, reply: type[BaseModel], query: type[BaseModel] | None = None
) -> Route:
    return Route("GET", template, summary, handler, reply, query=query)


def _document(template: str, summary: str, handler: Handler, reply: type[BaseModel], status: int = 200) -> Route:
    return Route("GET", template, summary, handler, reply, status, public=True)


_LOOK: Final = platform_schemas.CollectionQuery

ROUTES: Final = (
    Route("POST", NOVA.template(paths.SERVER_ACTION), "Act on an instance", actions=_SERVER_ACTIONS),
    _get(
        CINDER.template(paths.SNAPSHOTS),
        "List instance snapshots",
        snapshots.list_page,
        schemas.ListReply,
        schemas.ListQuery,
    ),
    _get(
        CINDER.template(paths.PROGRESS),
        "Watch a task",
        snapshots.progress,
        schemas.ProgressReply,
        schemas.ProgressQuery,
    ),
    _get(CINDER.template(paths.SNAPSHOT), "Show an instance snapshot", snapshots.show, schemas.ShowReply),
    Route("PUT", CINDER.template(paths.SNAPSHOT), "Update an instance snapshot", actions=_UPDATES),
    Route(
        "DELETE", CINDER.template(paths.SNAPSHOT), "Delete an instance snapshot", snapshots.delete, schemas.TaskReply
    ),
    Route("POST", CINDER.template(paths.VOLUME_ACTION), "Ask about a volume", actions=_VOLUME_ACTIONS),
    _get(NOVA.template(paths.SERVERS), "List instances", servers.list_summaries, platform_schemas.ServersReply, _LOOK),
    _get(
        NOVA.template(paths.SERVERS_DETAIL),
        "List instances with details",
        servers.list_details,
        platform_schemas.ServersReply,
        _LOOK,
    ),
    _get(NOVA.template(paths.SERVER), "Show an instance", servers.show, platform_schemas.ServerReply),
    _get(CINDER.template(paths.VOLUMES), "List volumes", volumes.list_summaries, platform_schemas.VolumesReply, _LOOK),
    _get(
        CINDER.template(paths.VOLUMES_DETAIL),
        "List volumes with details",
        volumes.list_details,
        platform_schemas.VolumesReply,
        _LOOK,
    ),
    _get(CINDER.template(paths.VOLUME), "Show a volume", volumes.show, platform_schemas.VolumeReply),
    _get(
        NOVA.template(paths.ATTACHMENTS),
        "List attached volumes",
        servers.list_attachments,
        platform_schemas.VolumeAttachmentsReply,
    ),
    _get(
        NOVA.template(paths.ATTACHMENT),
        "Show an attached volume",
        servers.show_attachment,
        platform_schemas.VolumeAttachmentReply,
    ),
    _get(
        CINDER.template(paths.VOLUME_SNAPSHOTS),
        "List volume snapshots",
        volume_snapshots.list_page,
        platform_schemas.VolumeSnapshotsReply,
        platform_schemas.VolumeSnapshotQuery,
    ),
    _get(
        CINDER.template(paths.VOLUME_SNAPSHOTS_DETAIL),
        "List volume snapshots with details",
        volume_snapshots.list_page,
        platform_schemas.VolumeSnapshotsReply,
        platform_schemas.VolumeSnapshotQuery,
    ),
    _get(
        CINDER.template(paths.VOLUME_SNAPSHOT),
        "Show a volume snapshot",
        volume_snapshots.show,
        platform_schemas.VolumeSnapshotReply,
    ),
    _get(
        CINDER.template(paths.SERVICES),
        "List workers",
        workers.list_all,
        platform_schemas.ServicesReply,
        platform_schemas.ServicesQuery,
    ),
    # Cinder answers 300 where a version is still to be chosen, Nova 200; their clients know both.
    _document("/", "Versions", discovery.root, platform_schemas.VersionsReply, status=300),
    _document(NOVA.folder, "Versions of the compute API", discovery.compute, platform_schemas.VersionsReply),
    _document(
        CINDER.folder, "Versions of the volume API", discovery.volume, platform_schemas.VersionsReply, status=300
    ),
    _document(
        NOVA.folder + NOVA.version,
        "The compute API's version",
        discovery.compute_version,
        platform_schemas.VersionReply,
    ),
    _document(
        CINDER.folder + CINDER.version, "The volume API's version", discovery.volume, platform_schemas.VersionsReply
    ),
)
