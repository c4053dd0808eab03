"""What the driver for QEMU processes is told by the settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oslo_config import cfg

from stillframe.settings import Group, Settings

OPTIONS: Final = [
    cfg.StrOpt(
        "instances_dir",
        deprecated_group="local",
        help="Folder of the instance declarations; the default is `instances` in state_dir.",
    ),
]

GROUP: Final = Group("qemu", OPTIONS)


@dataclass(frozen=True, slots=True)
class QemuOptions:
    """Where instances are declared, and where the driver keeps its own records.

    The latter are in `local/`, as they were when one package had QEMU and image files.
    """

    instances: Path
    state: Path


def read(settings: Settings) -> QemuOptions:
    """What the options say."""
    chosen = settings.conf.qemu.instances_dir or settings.state_dir / "instances"
    return QemuOptions(Path(chosen).absolute(), settings.state_dir / "local")
