"""Microversions: each API is there in its first one, and says so; see the guideline of the OpenStack API group.

Requests for another are refused, as a client that asks for one counts on what came with it.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from stillframe.api import errors
from stillframe.paths import CINDER, NOVA

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

LOG = logging.getLogger(__name__)

_HEADER: Final = "OpenStack-API-Version"
# Nova's first name for it, which older clients send.
_LEGACY_HEADER: Final = "X-OpenStack-Nova-API-Version"
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,3}\.(0|[1-9][0-9]{0,3})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Api:
    """One of the two APIs: `name` as clients call it in the header, `number` its only microversion."""

    name: str
    paths: re.Pattern[str]
    number: str


_COMPUTE: Final = Api("compute", re.compile(f"{NOVA.root}/.+", re.DOTALL), "2.1")
_VOLUME: Final = Api("volume", re.compile(f"{CINDER.root}/.+", re.DOTALL), "3.0")


def negotiated(app: WSGIApplication) -> WSGIApplication:
    """Refuse requests for microversions that are not there, and let every reply of an API name its own."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        api = next((one for one in (_COMPUTE, _VOLUME) if one.paths.fullmatch(environ["PATH_INFO"])), None)
        if api is None:
            return app(environ, start_response)
        told = list(_told(api))

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, [*headers, *told], *more)

        for asked in _asked(api, environ):
            refusal = _refusal(api, asked)
            if refusal is not None:
                LOG.info("refused with %d: %s", *refusal)
                return errors.refuse(environ, start, *refusal)
        return app(environ, start)

    return application


def _asked(api: Api, environ: WSGIEnvironment) -> Iterator[str]:
    for item in environ.get(_key(_HEADER), "").split(","):
        name, _, number = item.strip().partition(" ")
        if name.lower() == api.name:
            yield number.strip()
    if api is _COMPUTE and _key(_LEGACY_HEADER) in environ:
        yield environ[_key(_LEGACY_HEADER)].strip()


def _refusal(api: Api, asked: str) -> tuple[HTTPStatus, str] | None:
    if asked.lower() in (api.number, "latest"):
        return None
    if not _NUMBER.fullmatch(asked):
        return HTTPStatus.BAD_REQUEST, f"{_HEADER}: the version must be {api.number}, or the word latest."
    return HTTPStatus.NOT_ACCEPTABLE, (
        f"Version {asked} is not supported by the API. Minimum is {api.number} and maximum is {api.number}."
    )


def _told(api: Api) -> Iterator[tuple[str, str]]:
    yield _HEADER, f"{api.name} {api.number}"
    yield "Vary", _HEADER
    if api is _COMPUTE:
        yield _LEGACY_HEADER, api.number
        yield "Vary", _LEGACY_HEADER


def _key(header: str) -> str:
    return f"HTTP_{header.upper().replace('-', '_')}"
