"""What the local drivers are told by the settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oslo_config import cfg

from stillframe.settings import Group, Settings

OPTIONS: Final = [
    cfg.StrOpt("instances_dir", help="Folder of the instance declarations; the default is `instances` in state_dir."),
]

GROUP: Final = Group("local", OPTIONS)


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """Where instances are declared, and where the drivers keep their own records."""

    instances: Path
    state: Path


def read(settings: Settings) -> LocalOptions:
    """What the options say."""
    chosen = settings.conf.local.instances_dir or settings.state_dir / "instances"
    return LocalOptions(Path(chosen).absolute(), settings.state_dir / "local")
