"""What the drivers for a cloud are told by the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from oslo_config import cfg

from stillframe.settings import Group, Settings

OPTIONS: Final = [
    cfg.StrOpt("region_name", help="Region whose Nova and Cinder are used; needed if the cloud has several."),
    cfg.StrOpt(
        "interface",
        default="internal",
        choices=["internal", "public", "admin"],
        help="Which endpoints of the catalogue are used.",
    ),
    cfg.FloatOpt(
        "snapshot_timeout",
        deprecated_name="patience",
        default=900,
        min=1,
        help="Seconds that Cinder may take to create or delete one snapshot.",
    ),
    cfg.FloatOpt(
        "revert_timeout",
        deprecated_name="revert_patience",
        default=14400,
        min=1,
        help="Seconds after which a revert that has neither ended nor failed counts as lost, as if its cinder-volume "
        "had died.",
    ),
    cfg.ListOpt(
        "reverting_backends",
        default=[],
        help="Names (volume_backend_name) of Cinder's back ends that report sparse copies but whose drivers revert "
        "volumes themselves. Such a back end is trusted to revert only if it is named here.",
    ),
    cfg.StrOpt(
        "quiesce",
        default="none",
        choices=[
            ("none", "the server keeps running while its volumes are cut"),
            ("pause", "Nova pauses the server until Cinder has cut all its volumes"),
        ],
        help="How a running server with several volumes is held still for a cut.",
    ),
    cfg.FloatOpt(
        "pause_seconds",
        default=30,
        min=1,
        help="Longest time that a server stays paused, in seconds. After it the server is unpaused, and the snapshot "
        "fails.",
    ),
    cfg.BoolOpt(
        "reimage",
        default=True,
        help="Whether the whole snapshot is copied over the volume by os-reimage if neither Stillframe's extension nor "
        "Cinder's own revert can be used.",
    ),
    cfg.FloatOpt(
        "server_timeout",
        deprecated_name="server_patience",
        default=120,
        min=0.1,
        advanced=True,
        help="Seconds that Nova may take to start or stop a server, besides the time that a guest has to stop by "
        "itself.",
    ),
    cfg.FloatOpt(
        "volume_service_interval",
        default=5,
        min=0.01,
        advanced=True,
        help="Seconds between two queries whether the cinder-volume that reverts a volume is alive.",
    ),
    cfg.FloatOpt(
        "late_requests",
        default=10,
        min=0,
        advanced=True,
        help="Seconds in which Cinder may still work on a request that it has not answered, once it answers again. "
        "Until then nothing is asked of the volume, and nothing that Cinder says of it is gone by. Also a retry, a "
        "rollback, the deletion after a failed restore, and a worker that takes over wait for this long.",
    ),
    cfg.FloatOpt(
        "paused_servers_interval",
        default=60,
        min=0,
        advanced=True,
        help="Shortest time between two searches for servers that a broken-off snapshot left paused, in seconds.",
    ),
    cfg.FloatOpt(
        "updated_resolution",
        default=2,
        min=0,
        advanced=True,
        help="Seconds within which two changes of a server may have the same updated_at in Nova.",
    ),
]

GROUP: Final = Group("openstack", OPTIONS, login=True)


@dataclass(frozen=True, slots=True)
class OpenStackOptions:
    """Which cloud's services are used and how long they are waited for, in seconds; logging in is keystoneauth's."""

    region_name: str | None
    interface: str
    snapshot_timeout: float
    revert_timeout: float
    reverting_backends: tuple[str, ...]
    quiesce: str
    pause_seconds: float
    reimage: bool
    server_timeout: float
    volume_service_interval: float
    late_requests: float
    paused_servers_interval: float
    updated_resolution: float


def read(settings: Settings) -> OpenStackOptions:
    """What the options say."""
    group = settings.conf.openstack
    return OpenStackOptions(
        region_name=group.region_name,
        interface=group.interface,
        snapshot_timeout=group.snapshot_timeout,
        revert_timeout=group.revert_timeout,
        reverting_backends=tuple(group.reverting_backends),
        quiesce=group.quiesce,
        pause_seconds=group.pause_seconds,
        reimage=group.reimage,
        server_timeout=group.server_timeout,
        volume_service_interval=group.volume_service_interval,
        late_requests=group.late_requests,
        paused_servers_interval=group.paused_servers_interval,
        updated_resolution=group.updated_resolution,
    )
