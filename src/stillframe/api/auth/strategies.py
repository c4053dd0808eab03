"""The choice among the ways to authenticate."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from stillframe.api.auth import token_file
from stillframe.api.auth.basic import http_basic
from stillframe.api.auth.keystone import keystone
from stillframe.api.auth.noauth import noauth
from stillframe.api.auth.token import token
from stillframe.domain.errors import InvalidInput

if TYPE_CHECKING:
    from stillframe.api.auth.guard import Guard
    from stillframe.settings import Settings


#: What `noauth` means.
NOBODY_IS_ASKED: Final = (
    "every user of this machine and every guest that reaches its loopback addresses may do everything"
)


def build_guard(settings: Settings) -> Guard:
    """The guard that the settings name; raises `InvalidInput` for settings it cannot work with."""
    if settings.api.auth_strategy == "keystone":
        return keystone(settings)
    if settings.api.auth_strategy == "http_basic":
        return http_basic(settings)
    if settings.api.auth_strategy == "noauth":
        return noauth()
    return token(settings)


def check_strategy(settings: Settings) -> None:
    """Raises `InvalidInput` for settings with which the service would not start; makes nothing."""
    require_safe_binding(settings)
    if settings.api.auth_strategy == "token":
        token_file.find(settings.state_dir)
    else:
        build_guard(settings)


def require_safe_binding(settings: Settings) -> None:
    """Raises `InvalidInput` if everybody in the network could act as anybody."""
    host = settings.api.bind_host
    if settings.api.auth_strategy == "noauth" and not _is_loopback(host):
        raise InvalidInput(
            f"with auth_strategy = noauth the service listens only on a loopback address, and '{host}' is none; "
            "use token, http_basic or keystone",
            "bind_host",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
