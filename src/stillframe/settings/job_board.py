"""Where a job board is, if there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from oslo_config import cfg

from stillframe.settings.groups import Group

OPTIONS: Final = [
    cfg.StrOpt(
        "backend",
        default="none",
        choices=[
            ("none", "workers look into the database every second"),
            ("redis", "TaskFlow's job board on Redis or Valkey"),
            ("etcd", "TaskFlow's job board on etcd 3"),
        ],
        help="What tells workers that there is something to do.",
    ),
    cfg.HostAddressOpt("host", default="127.0.0.1", help="Where its server is; with `sentinel` the first sentinel."),
    cfg.PortOpt("port", help="Its port; without it the usual one: 6379, 26379 for a sentinel, 2379 for etcd."),
    cfg.StrOpt("namespace", default="stillframe", help="What its keys begin with: one for each database."),
    cfg.StrOpt("username", help="Who the service is there (Redis)."),
    cfg.StrOpt("password", secret=True, help="The password (Redis)."),
    cfg.IntOpt("database", default=0, min=0, help="The number of the database (Redis)."),
    cfg.StrOpt("sentinel", help="Name of the service that sentinels watch over; without it there are none (Redis)."),
    cfg.ListOpt("sentinel_fallbacks", default=[], help="More sentinels, each HOST:PORT (Redis)."),
    cfg.StrOpt("sentinel_username", help="Who the service is at the sentinels (Redis)."),
    cfg.StrOpt("sentinel_password", secret=True, help="The password there (Redis)."),
    cfg.BoolOpt("tls", default=False, help="Whether the connection is encrypted."),
    cfg.StrOpt("ca_file", help="The authority of the server's certificate, in PEM."),
    cfg.StrOpt("cert_file", help="The service's own certificate, in PEM."),
    cfg.StrOpt("key_file", help="Its key, in PEM."),
    cfg.FloatOpt("timeout", default=10, min=0.1, help="Seconds to wait for an answer."),
    cfg.FloatOpt(
        "look_seconds",
        default=5,
        min=0.1,
        help="Seconds after which workers look into the database themselves, whatever the board says.",
    ),
]

GROUP: Final = Group("job_board", OPTIONS)


@dataclass(frozen=True, slots=True)
class JobBoardOptions:
    """Where a job board is and how to reach it; times in seconds. What is None or empty is left to the library."""

    backend: str
    host: str
    port: int | None
    namespace: str
    username: str | None
    password: str | None
    database: int
    sentinel: str | None
    sentinel_fallbacks: tuple[str, ...]
    sentinel_username: str | None
    sentinel_password: str | None
    tls: bool
    ca_file: str | None
    cert_file: str | None
    key_file: str | None
    timeout: float
    look_seconds: float


def read(conf: cfg.ConfigOpts) -> JobBoardOptions | None:
    """What the options say; None where there is none."""
    group = conf.job_board
    if group.backend == "none":
        return None
    return JobBoardOptions(
        backend=group.backend,
        host=group.host,
        port=group.port,
        namespace=group.namespace,
        username=group.username,
        password=group.password,
        database=group.database,
        sentinel=group.sentinel,
        sentinel_fallbacks=tuple(group.sentinel_fallbacks),
        sentinel_username=group.sentinel_username,
        sentinel_password=group.sentinel_password,
        tls=group.tls,
        ca_file=group.ca_file,
        cert_file=group.cert_file,
        key_file=group.key_file,
        timeout=group.timeout,
        look_seconds=group.look_seconds,
    )
