"""Which names the service answers to, and what web pages may not ask of it.

A browser takes web pages' requests to every address that it reaches itself. A page whose name is made to mean 127.0.0.1
(DNS rebinding) is given away by the Host header, and one of another site by the headers Sec-Fetch-Site and Origin.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from stillframe.api import errors
from stillframe.domain.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

LOG = logging.getLogger(__name__)

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_PAGES: Final = frozenset({"same-origin", "none"})
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{0,5})?", re.ASCII | re.IGNORECASE)
_AUTHORITY: Final = re.compile(r"[a-z][a-z0-9+.-]*://([^/?#]*)", re.ASCII | re.IGNORECASE)
_LONGEST_SHOWN: Final = 100

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts that requests may be addressed to.

    Those are the loopback addresses, `localhost`, `names`, and `addresses`: all of them if this is None.
    """

    names: frozenset[str]
    addresses: frozenset[_Address] | None

    def refusal(self, host: str | None, target: str) -> tuple[HTTPStatus, str] | None:
        """Why a request with this Host header and this target in its first line is not answered; None if it is."""
        if host is None:
            return HTTPStatus.BAD_REQUEST, "The request has no Host header."
        absolute = _AUTHORITY.match(target)
        # By RFC 9112 the target's own host takes the place of the header's; a server may go by either.
        for said in (host, absolute.group(1)) if absolute else (host,):
            parsed = _HOST.fullmatch(said)
            if parsed is None:
                return HTTPStatus.BAD_REQUEST, "The request's host is not a name or an address."
            if not self._answers_to(parsed.group(1)):
                shown = quote(said[:_LONGEST_SHOWN], safe="[]:")
                return HTTPStatus.MISDIRECTED_REQUEST, (
                    f"The service does not answer to the host '{shown}'; its operator can add it to allowed_hosts."
                )
        return None

    def _answers_to(self, host: str) -> bool:
        address = _address(host)
        if address is None:
            return _name(host) in self.names
        if address.is_loopback or self.addresses is None:
            return not address.is_unspecified
        return address in self.addresses


def known_hosts(bound: str, public_endpoint: str | None = None, allowed: Sequence[str] = ()) -> Hosts:
    """The hosts of a service that listens on `bound`; raises `InvalidInput` for an entry of `allowed` that is none."""
    said = [bound, *allowed]
    if public_endpoint is not None and (public := urlsplit(public_endpoint).hostname):
        said.append(public)
    for entry in allowed:
        found = _HOST.fullmatch(entry)
        if _address(entry) is None and (found is None or found.group(2) is not None):
            raise InvalidInput(
                f"'{entry}' is no host; it must be a name or an address, without a port", "allowed_hosts"
            )
    listens_on = _address(bound)
    addresses = frozenset(address for host in said if (address := _address(host)) is not None)
    everywhere = listens_on is not None and listens_on.is_unspecified
    names = frozenset(_name(host) for host in said if _address(host) is None)
    return Hosts(names | {"localhost"}, None if everywhere else addresses)


def _name(host: str) -> str:
    return host.lower().removesuffix(".")


def _address(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def only_for(hosts: Hosts, app: WSGIApplication, exempt: Callable[[str], bool]) -> WSGIApplication:
    """Refuse requests to other hosts, but for paths that are `exempt`."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # Servers keep the target of the request's first line under either name.
        target = environ.get("REQUEST_URI") or environ.get("RAW_URI") or ""
        refusal = hosts.refusal(environ.get("HTTP_HOST"), target)
        if refusal is None or exempt(environ["PATH_INFO"]):
            return app(environ, start_response)
        status, message = refusal
        LOG.info("refused with %d: %s", status, message)
        return errors.refuse(environ, start_response, status, message)

    return application


def without_foreign_pages(
    app: WSGIApplication, public: Callable[[str], bool], public_endpoint: str | None
) -> WSGIApplication:
    """Refuse what web pages of other sites ask for, but for looking at what is `public`."""
    own = urlsplit(public_endpoint).netloc.lower() if public_endpoint else None

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        looks = environ["REQUEST_METHOD"] in _SAFE and public(environ["PATH_INFO"])
        if looks or not _comes_from_a_foreign_page(environ, own):
            return app(environ, start_response)
        LOG.info("refused with 403: a request from a web page of another site")
        message = "Requests from web pages of other sites are not accepted."
        return errors.refuse(environ, start_response, HTTPStatus.FORBIDDEN, message)

    return application


def _comes_from_a_foreign_page(environ: WSGIEnvironment, own: str | None) -> bool:
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        return site.strip().lower() not in _OWN_PAGES
    origin = environ.get("HTTP_ORIGIN")
    if origin is None:
        # No browser, or one that sends neither: then it is a GET whose answer the page does not get to see.
        return False
    # An origin is a scheme and a host, or the word null.
    netloc = origin.lower().partition("://")[2]
    return not netloc or netloc not in (environ.get("HTTP_HOST", "").lower(), own)
