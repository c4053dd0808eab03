"""The service of this machine: where it is by its settings, and the token that its owner comes in by.

The token is a secret of the file's owner, and a port on a loopback address is anybody's: another user may listen there
while the service does not run. So it goes to nobody but the service that it is of.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from stillframe.api.auth import token_file
from stillframe.cli.exit_codes import CommandFailed
from stillframe.cli.options import ENDPOINT
from stillframe.domain.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stillframe.settings import Settings

_SOCKETS: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENS: Final = "0A"
_ROOT: Final = 0
_SAY: Final = "say which token with --os-token or OS_TOKEN"

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Local:
    """How to log in: a token, or anybody's name where nobody is asked; with neither, `hint` says why not."""

    token: str = field(default="", repr=False)
    nobody_is_asked: bool = False
    hint: str = ""


def default_endpoint(settings: Callable[[], Settings]) -> str:
    """Where the service of this machine is, by its settings as far as they can be read."""
    try:
        api = settings().api
    except CommandFailed:
        return ENDPOINT
    if not api.bind_port:
        return ENDPOINT
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(api.bind_host.strip("[]"), api.bind_host.strip("[]"))  # noqa: S104
    return f"http://[{host}]:{api.bind_port}" if ":" in host else f"http://{host}:{api.bind_port}"


def login(endpoint: str, settings: Callable[[], Settings]) -> Local:
    """What the service of this machine lets one in by, if it is the one at `endpoint`."""
    try:
        return _login(endpoint, settings())
    except (CommandFailed, _WithheldError) as reason:
        return Local(hint=f"no token was sent: {reason}")


class _WithheldError(Exception):
    """Why there is no token, or none for this endpoint."""


def _login(endpoint: str, found: Settings) -> Local:
    addresses, strategy = _addresses(endpoint, found), found.api.auth_strategy
    if not addresses:
        raise _WithheldError(f"by its settings {endpoint} is not the service of this machine; {_SAY}")
    if strategy == "noauth":
        return Local(nobody_is_asked=True)
    if strategy != "token":
        raise _WithheldError(f"the service of this machine asks for {strategy}; say who you are")
    kept = _kept(found.state_dir)
    try:
        owners = set(_listeners(addresses, urlsplit(endpoint).port))
    except OSError as error:
        raise _WithheldError(f"it cannot be seen who listens at {endpoint}: {error}; {_SAY}") from None
    if not owners:
        raise _WithheldError(f"nothing listened at {endpoint}")
    if owners - {kept.owner, _ROOT}:
        raise _WithheldError(f"another user than the token's owner listens at {endpoint}")
    return Local(token=kept.token)


def _kept(state_dir: Path) -> token_file.Kept:
    try:
        kept = token_file.find(state_dir)
    except token_file.Foreign as error:
        raise _WithheldError(f"{error.message}; with sudo -u {error.owner} it is found, or {_SAY}") from None
    except InvalidInput as error:
        raise _WithheldError(error.message) from None
    if kept is None:
        path = token_file.path_of(state_dir)
        raise _WithheldError(f"{path} is not there; does the service run with other settings?")
    return kept


def _addresses(endpoint: str, settings: Settings) -> frozenset[_Address]:
    """What the endpoint's host stands for if it is the service's own; else nothing."""
    api = settings.api
    try:
        where = urlsplit(endpoint)
        host, port = where.hostname, where.port
        if where.scheme != "http" or not host or port is None or where.username is not None:
            return frozenset()
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        # It is no URI, or its host has no address.
        return frozenset()
    addresses = frozenset(_plain(ipaddress.ip_address(one[4][0])) for one in found)
    here = host == api.bind_host.strip("[]").lower() or all(address.is_loopback for address in addresses)
    return addresses if here and api.bind_port in (0, port) else frozenset()


def _listeners(addresses: frozenset[_Address], port: int | None) -> Iterator[int]:
    """The uids of all that would get a connection to one of the addresses."""
    for table in _SOCKETS:
        with table.open(encoding="ascii") as lines:
            next(lines)
            for line in lines:
                _slot, local, _remote, state, _queues, _timer, _retransmits, uid, *_rest = line.split()
                digits, _, at = local.partition(":")
                address = _address(digits)
                if state == _LISTENS and int(at, 16) == port and (address.is_unspecified or address in addresses):
                    yield int(uid)


def _address(digits: str) -> _Address:
    """An address as the kernel prints it: words of 32 bits, each in the order of this machine."""
    words = (int(digits[start : start + 8], 16) for start in range(0, len(digits), 8))
    return _plain(ipaddress.ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words)))


def _plain(address: _Address) -> _Address:
    return getattr(address, "ipv4_mapped", None) or address
