"""How the API is served, and to whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from oslo_config import cfg

from stillframe.settings.groups import Group

OPTIONS: Final = [
    cfg.StrOpt("state_dir", default="/var/lib/stillframe", help="Folder for all files that the service keeps."),
    cfg.HostAddressOpt("bind_host", default="127.0.0.1", help="Address to listen on."),
    cfg.PortOpt("bind_port", default=8790, help="Port to listen on."),
    cfg.StrOpt(
        "auth_strategy",
        default="token",
        choices=[
            ("token", "the service's own token, made at the first start: `auth/token` in `state_dir`"),
            ("keystone", "Keystone's tokens, checked by keystonemiddleware"),
            ("http_basic", "users of an htpasswd file, see [http_basic]"),
            ("noauth", "no check: also other users and guests of the machine are believed; only on loopback"),
        ],
        help="How callers prove who they are.",
    ),
    cfg.URIOpt(
        "public_endpoint",
        schemes=["http", "https"],
        help="Base URL of task URIs; without it they are built from the request.",
    ),
    cfg.ListOpt(
        "allowed_hosts",
        default=[],
        help="Further names and addresses, without a port, that are accepted in the Host header of a request. Always "
        "accepted are `localhost`, loopback addresses, `bind_host`, and the host of `public_endpoint`; with "
        "`bind_host` 0.0.0.0 or :: every address.",
    ),
    cfg.ListOpt(
        "metrics_peers",
        default=["127.0.0.0/8", "::1"],
        help="Networks and addresses that may read /metrics on the API's port, without credentials. Requests through a "
        "proxy are refused.",
    ),
    cfg.IntOpt("max_body_size", default=65536, min=1024, help="Largest accepted request body, in bytes."),
    cfg.IntOpt("max_limit", default=1000, min=1, help="Largest number of items on one page of a list."),
    cfg.IntOpt("api_threads", default=16, min=1, help="Number of requests handled at the same time."),
]

HTTP_BASIC: Final = [
    cfg.StrOpt("user_file", default="/etc/stillframe/htpasswd", help="htpasswd file with bcrypt hashes."),
    cfg.ListOpt(
        "grants",
        default=[],
        help="Roles of the users, each as USER:PROJECT:ROLE; the role is reader, member or admin. A request acts in "
        "the project of the user's first grant, unless its path names another project of the user.",
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
