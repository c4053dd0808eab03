"""What the drivers for a cloud are told by the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from oslo_config import cfg

from stillframe.settings import Group, Settings

OPTIONS: Final = [
    cfg.StrOpt("region_name", help="Region of the cloud whose Nova and Cinder are used; without it the only one."),
    cfg.StrOpt(
        "interface",
        default="internal",
        choices=["internal", "public", "admin"],
        help="Endpoints of the catalogue that are used.",
    ),
    cfg.FloatOpt("patience", default=900, min=1, help="Seconds that Cinder may take for one snapshot or its deletion."),
    cfg.FloatOpt(
        "revert_patience",
        default=14400,
        min=1,
        help="Seconds until a revert that neither ends nor fails counts as lost with the cinder-volume that ran it.",
    ),
    cfg.ListOpt(
        "reverting_backends",
        default=[],
        help="Names (volume_backend_name) of Cinder's back ends whose drivers revert by themselves although they "
        "report sparse copies; without being named here, they are not trusted to.",
    ),
    cfg.StrOpt(
        "quiesce",
        default="none",
        choices=[
            ("none", "a server that runs goes on while its volumes are cut"),
            ("pause", "Nova pauses it for as long as Cinder takes for cutting all of them"),
        ],
        help="How a running server with several volumes is held still for a cut.",
    ),
    cfg.FloatOpt(
        "pause_seconds",
        default=30,
        min=1,
        help="Most seconds that a server stays paused. It is let run then, and the snapshot fails.",
    ),
    cfg.BoolOpt(
        "reimage",
        default=True,
        help="Where neither our extension nor Cinder's own revert will do: copy the whole snapshot over the volume "
        "by os-reimage.",
    ),
]

GROUP: Final = Group("openstack", OPTIONS, login=True)


@dataclass(frozen=True, slots=True)
class OpenStackOptions:
    """Which cloud's services are used and how long they are waited for, in seconds; logging in is keystoneauth's."""

    region_name: str | None
    interface: str
    patience: float
    revert_patience: float
    reverting_backends: tuple[str, ...]
    quiesce: str
    pause_seconds: float
    reimage: bool


def read(settings: Settings) -> OpenStackOptions:
    """What the options say."""
    group = settings.conf.openstack
    return OpenStackOptions(
        region_name=group.region_name,
        interface=group.interface,
        patience=group.patience,
        revert_patience=group.revert_patience,
        reverting_backends=tuple(group.reverting_backends),
        quiesce=group.quiesce,
        pause_seconds=group.pause_seconds,
        reimage=group.reimage,
    )
