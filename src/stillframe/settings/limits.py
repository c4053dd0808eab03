"""What may run at a time, over all workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from oslo_config import cfg

from stillframe.settings.groups import Group

OPTIONS: Final = [
    cfg.IntOpt("project", default=0, min=0, help="Operations of one project at the same time; 0 is no limit."),
    cfg.IntOpt("host", default=0, min=0, help="Operations on instances of one host at the same time; 0 is no limit."),
    cfg.IntOpt("backend", default=0, min=0, help="Operations on one back end at the same time; 0 is no limit."),
]

GROUP: Final = Group("limits", OPTIONS)


@dataclass(frozen=True, slots=True)
class OperationLimits:
    """How many operations may run at a time, over all workers: of one project, on one host, on one back end.

    0 is no limit.
    """

    project: int = 0
    host: int = 0
    backend: int = 0

    def of(self, key: str) -> int:
        """The limit of what a key such as `host:NAME` counts."""
        return {"project": self.project, "host": self.host, "backend": self.backend}[key.partition(":")[0]]


def read(conf: cfg.ConfigOpts) -> OperationLimits:
    """What the options say."""
    return OperationLimits(conf.limits.project, conf.limits.host, conf.limits.backend)
