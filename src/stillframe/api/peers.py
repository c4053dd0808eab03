"""Who may look at what the service shows of itself, by the address that a connection comes from."""

from __future__ import annotations

import ipaddress
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from stillframe.api import errors
from stillframe.domain.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

LOG = logging.getLogger(__name__)

METRICS: Final = "/metrics"

_FORWARDED: Final = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_")
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def metrics_for(peers: Sequence[str], app: WSGIApplication) -> WSGIApplication:
    """Show the metrics to connections from these networks only, and to none that a proxy has handed on.

    Whoever else asks is told what is told of any path that is not there. Raises `InvalidInput` for what is no network.
    """
    networks = [_network(peer) for peer in peers]

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if _is_metrics(environ["PATH_INFO"]) and not _comes_from(networks, environ):
            LOG.info("refused with 404: the metrics are for [DEFAULT] metrics_peers, without a proxy")
            return errors.refuse(environ, start_response, HTTPStatus.NOT_FOUND, "The resource could not be found.")
        return app(environ, start_response)

    return application


def _is_metrics(path: str) -> bool:
    """Whether a decoded path could be taken for theirs by anybody behind."""
    return "/" + "/".join(part for part in path.lower().split("/") if part) == METRICS


def _comes_from(networks: Sequence[_Network], environ: WSGIEnvironment) -> bool:
    if any(name.startswith(_FORWARDED) for name in environ):
        return False
    try:
        peer = ipaddress.ip_address(str(environ.get("REMOTE_ADDR", "")).partition("%")[0])
    except ValueError:
        return False
    return any(peer in network for network in networks)


def _network(said: str) -> _Network:
    try:
        return ipaddress.ip_network(said)
    except ValueError:
        raise InvalidInput(
            f"'{said}' is no network; it must be one such as 192.0.2.0/24, or an address", "metrics_peers"
        ) from None
