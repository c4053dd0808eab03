"""The choice among the ways to authenticate."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from stillframe.api.auth.basic import http_basic
from stillframe.api.auth.keystone import keystone
from stillframe.api.auth.noauth import noauth
from stillframe.domain.errors import InvalidInput

if TYPE_CHECKING:
    from stillframe.api.auth.guard import Guard
    from stillframe.settings import Settings


def build_guard(settings: Settings) -> Guard:
    """The guard that the settings name; raises `InvalidInput` for settings it cannot work with."""
    if settings.api.auth_strategy == "keystone":
        return keystone(settings)
    if settings.api.auth_strategy == "http_basic":
        return http_basic(settings)
    return noauth()


def require_safe_binding(settings: Settings) -> None:
    """Raises `InvalidInput` if everybody in the network could act as anybody."""
    host = settings.api.bind_host
    if settings.api.auth_strategy == "noauth" and not _is_loopback(host):
        raise InvalidInput(
            f"with auth_strategy = noauth the service listens only on a loopback address, and '{host}' is none; "
            "use keystone or http_basic",
            "bind_host",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
