"""The only mapping of errors to HTTP: every refusal and failure leaves here, in the style of Nova and Cinder."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import falcon
import webob  # type: ignore[import-untyped]
import webob.exc  # type: ignore[import-untyped]

from stillframe.domain.disclosure import without_paths
from stillframe.domain.errors import (
    BackendError,
    Conflict,
    Damaged,
    Forbidden,
    InvalidInput,
    NotFound,
    OutOfSpace,
    Refused,
    StillframeError,
    TooLarge,
    Unauthorized,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from pydantic import ValidationError

LOG = logging.getLogger(__name__)

FAULT_NAMES: Final = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    406: "computeFault",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    500: "computeFault",
    501: "notImplemented",
    503: "serviceUnavailable",
}

_STATUSES: Final[dict[type[StillframeError], int]] = {
    InvalidInput: 400,
    Refused: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    Unavailable: 503,
    # Asked before anything is touched, these two refuse a request like any other state of the world.
    OutOfSpace: 400,
    Damaged: 400,
}
_UNEXPECTED: Final = "An unexpected error occurred; the log of the service says more under this request's id."
_MOST_PROBLEMS: Final = 5

# Marks a request whose error has got its body here.
_STYLED: Final = "stillframe.styled"


def fault_body(status: int, message: str) -> dict[str, Any]:
    """The body of a refusal or failure."""
    name = FAULT_NAMES.get(status, "badRequest" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "computeFault")
    return {name: {"code": status, "message": message}}


def invalid(error: ValidationError, *above: str) -> InvalidInput:
    """What pydantic found wrong, each problem with the dotted path of its key below `above`."""
    problems = []
    for problem in error.errors(include_url=False, include_input=False)[:_MOST_PROBLEMS]:
        path = ".".join(str(part) for part in (*above, *problem["loc"]))
        problems.append((path, problem["msg"].removeprefix("Value error, ")))
    first_path, first = problems[0]
    rest = "".join(f"; {path}: {message}" for path, message in problems[1:])
    return InvalidInput(first + rest, first_path or None)


def install(app: falcon.App[Any, Any], challenge: str | None) -> None:
    """Let every error that leaves a handler become a reply; `challenge` goes with each 401."""

    def handle(request: falcon.Request, response: falcon.Response, error: Exception, _params: object) -> None:
        status, message, headers = _translate(error)
        if status == HTTPStatus.UNAUTHORIZED and challenge:
            headers["WWW-Authenticate"] = challenge
        request.env[_STYLED] = True
        response.status = status
        response.media = fault_body(status, message)
        response.content_type = falcon.MEDIA_JSON
        response.set_headers(headers)

    for kind in (Exception, falcon.HTTPError):
        app.add_error_handler(kind, handle)


def _translate(error: Exception) -> tuple[int, str, dict[str, str]]:
    if isinstance(error, falcon.HTTPError):
        return _translate_falcon(error)
    if isinstance(error, webob.exc.HTTPException):
        response = error.wsgi_response
        return response.status_int, response.detail or response.explanation, {}
    for kind in type(error).__mro__:
        status = _STATUSES.get(kind)
        if status is not None and isinstance(error, StillframeError):
            LOG.info("refused with %d: %s", status, error.in_full())
            return status, _for_everybody(error), {}
    told = error.in_full() if isinstance(error, StillframeError) else error
    LOG.error("the request failed: %s", told, exc_info=error)
    # The platform's own refusal helps the user; anything else is an accident whose text is for the log.
    message = _for_everybody(error) if isinstance(error, BackendError) else _UNEXPECTED
    return int(HTTPStatus.INTERNAL_SERVER_ERROR), message, {}


def _for_everybody(error: StillframeError) -> str:
    """The message without paths of a host; that of a key in the request is the client's own, and stays."""
    key = f"{error.path}: " if isinstance(error, InvalidInput) and error.path else ""
    return key + without_paths(error.message.removeprefix(key))


def _translate_falcon(error: falcon.HTTPError) -> tuple[int, str, dict[str, str]]:
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.NOT_FOUND:
        return error.status_code, "The resource could not be found.", headers
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return error.status_code, "The method is not allowed for this resource.", headers
    return error.status_code, error.description or error.title, headers


def refuse(
    environ: WSGIEnvironment, start_response: StartResponse, status: HTTPStatus, message: str
) -> Iterable[bytes]:
    """Answer a request that gets no further, in front of the handlers."""
    body = json.dumps(fault_body(status, message)).encode()
    headers = [("Content-Type", falcon.MEDIA_JSON), ("Content-Length", str(len(body)))]
    start_response(f"{status.value} {status.phrase}", headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def server_refusal(status: int) -> bytes:
    """The body for a request that the HTTP server does not hand over."""
    return json.dumps(fault_body(status, _BY_SERVER.get(status, _BY_SERVER[400]))).encode()


def failed(environ: WSGIEnvironment, start_response: StartResponse, error: Exception) -> Iterable[bytes]:
    """The last resort, for what breaks outside of the handlers."""
    LOG.error("the request failed: %s", error, exc_info=error)
    return refuse(environ, start_response, HTTPStatus.INTERNAL_SERVER_ERROR, _UNEXPECTED)


def restyled(app: WSGIApplication) -> WSGIApplication:
    """Give errors that a library's middleware answers by itself the same body as ours."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = webob.Request(environ)
        response = request.get_response(app)
        if response.status_int >= HTTPStatus.BAD_REQUEST and _STYLED not in environ:
            message = _FOREIGN.get(response.status_int, response.status)
            response.content_type = falcon.MEDIA_JSON
            response.charset = None
            response.body = json.dumps(fault_body(response.status_int, message)).encode()
        answer: Callable[..., Iterable[bytes]] = response
        return answer(environ, start_response)

    return application


# Its own texts repeat what the client has sent.
_BY_SERVER: Final = {
    400: "The request is not HTTP as it should be.",
    413: "The body of the request is too large.",
    431: "The head of the request is too large.",
    500: _UNEXPECTED,
    501: "The request uses a way of transfer that is not implemented.",
}
# Their own texts are web pages, or of another form.
_FOREIGN: Final = {
    401: "The request you have made requires authentication.",
    413: "The body of the request is too large.",
    503: "The identity service does not answer; try again later.",
}
