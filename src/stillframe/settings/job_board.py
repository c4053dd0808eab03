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
            ("none", "workers poll the database every second"),
            ("redis", "TaskFlow's job board on Redis or Valkey"),
            ("etcd", "TaskFlow's job board on etcd 3"),
        ],
        help="How workers are told of new operations.",
    ),
    cfg.HostAddressOpt(
        "host", default="127.0.0.1", help="Address of its server; with `sentinel`, of the first sentinel."
    ),
    cfg.PortOpt("port", help="Port of its server; the default is 6379 for Redis, 26379 for a sentinel, 2379 for etcd."),
    cfg.StrOpt("namespace", default="stillframe", help="Prefix of its keys; each database needs its own."),
    cfg.StrOpt("username", help="Name of the service's user (Redis)."),
    cfg.StrOpt("password", secret=True, help="Password of that user (Redis)."),
    cfg.IntOpt("database", default=0, min=0, help="Number of the database (Redis)."),
    cfg.StrOpt("sentinel", help="Name of the service that sentinels monitor; without it, none are used (Redis)."),
    cfg.ListOpt("sentinel_fallbacks", default=[], help="Further sentinels, each as HOST:PORT (Redis)."),
    cfg.StrOpt("sentinel_username", help="Name of the service's user at the sentinels (Redis)."),
    cfg.StrOpt("sentinel_password", secret=True, help="Password of that user (Redis)."),
    cfg.BoolOpt("tls", default=False, help="Whether the connection is encrypted."),
    cfg.StrOpt("ca_file", help="File with the CA of the server's certificate, in PEM."),
    cfg.StrOpt("cert_file", help="File with the service's client certificate, in PEM."),
    cfg.StrOpt("key_file", help="File with the key of that certificate, in PEM."),
    cfg.FloatOpt("timeout", default=10, min=0.1, help="Seconds to wait for an answer."),
    cfg.FloatOpt(
        "look_seconds",
        default=5,
        min=0.1,
        help="Seconds after which workers poll the database, even if the board announces nothing.",
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
