"""How the API is served, and to whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from oslo_config import cfg

from stillframe.settings.groups import Group

OPTIONS: Final = [
    cfg.StrOpt("state_dir", default="/var/lib/stillframe", help="Folder for everything the service keeps."),
    cfg.HostAddressOpt("bind_host", default="127.0.0.1", help="Address to listen on."),
    cfg.PortOpt("bind_port", default=8790, help="Port to listen on."),
    cfg.StrOpt(
        "auth_strategy",
        default="token",
        choices=[
            ("token", "the service's own token, made at the first start: `auth/token` in `state_dir`"),
            ("keystone", "tokens, checked by keystonemiddleware"),
            ("http_basic", "users of an htpasswd file, see [http_basic]"),
            ("noauth", "everybody is who they say, other users of the machine and its guests too; only on loopback"),
        ],
        help="How callers prove who they are.",
    ),
    cfg.URIOpt(
        "public_endpoint",
        schemes=["http", "https"],
        help="What task URIs start with; without it they are built from the request.",
    ),
    cfg.ListOpt(
        "allowed_hosts",
        default=[],
        help="More names and addresses, without a port, that the Host header of a request may have. It may always have "
        "`localhost`, a loopback address, `bind_host`, and the host of `public_endpoint`; with `bind_host` 0.0.0.0 or "
        ":: any address.",
    ),
    cfg.ListOpt(
        "metrics_peers",
        default=["127.0.0.0/8", "::1"],
        help="Networks and addresses that may read /metrics where the API is served. They need no credentials there, "
        "and no proxy may be between.",
    ),
    cfg.IntOpt("max_body_size", default=65536, min=1024, help="Longest accepted request body, in bytes."),
    cfg.IntOpt("max_limit", default=1000, min=1, help="Most items on one page of a list."),
    cfg.IntOpt("api_threads", default=16, min=1, help="Requests handled at a time."),
]

HTTP_BASIC: Final = [
    cfg.StrOpt("user_file", default="/etc/stillframe/htpasswd", help="htpasswd file with bcrypt hashes."),
    cfg.ListOpt(
        "grants",
        default=[],
        help="What its users may do, each USER:PROJECT:ROLE with a role of reader, member, admin. "
        "A user's project is that of its first grant unless the request's path names another of its projects.",
    ),
]

GROUPS: Final = (Group(None, OPTIONS), Group("http_basic", HTTP_BASIC))


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """How the API is served; `max_body_size` in bytes."""

    bind_host: str
    bind_port: int
    auth_strategy: str
    public_endpoint: str | None
    allowed_hosts: tuple[str, ...]
    metrics_peers: tuple[str, ...]
    max_body_size: int
    max_limit: int
    threads: int
    basic_user_file: str
    basic_grants: tuple[str, ...]


def read(conf: cfg.ConfigOpts) -> ApiSettings:
    """What the options say."""
    return ApiSettings(
        bind_host=conf.bind_host,
        bind_port=conf.bind_port,
        auth_strategy=conf.auth_strategy,
        public_endpoint=conf.public_endpoint.rstrip("/") if conf.public_endpoint else None,
        allowed_hosts=tuple(conf.allowed_hosts),
        metrics_peers=tuple(conf.metrics_peers),
        max_body_size=conf.max_body_size,
        max_limit=conf.max_limit,
        threads=conf.api_threads,
        basic_user_file=conf.http_basic.user_file,
        basic_grants=tuple(conf.http_basic.grants),
    )
