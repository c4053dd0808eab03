"""What a process shows that works and serves no API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from oslo_config import cfg

from stillframe.settings.groups import Group

OPTIONS: Final = [
    cfg.HostAddressOpt(
        "metrics_bind_host",
        default="127.0.0.1",
        help="Address on which 'stillframe worker' serves /metrics and /healthcheck, without credentials.",
    ),
    cfg.PortOpt(
        "metrics_bind_port", default=0, help="Port for these; 0 serves none. Each worker on a machine needs its own."
    ),
]

GROUP: Final = Group("worker", OPTIONS)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Where a process that serves no API shows its metrics; port 0: nowhere."""

    metrics_bind_host: str
    metrics_bind_port: int


def read(conf: cfg.ConfigOpts) -> WorkerSettings:
    """What the options say."""
    return WorkerSettings(conf.worker.metrics_bind_host, conf.worker.metrics_bind_port)
