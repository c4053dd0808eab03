"""Filters for the api-paste.ini of Nova and of Cinder, which make Stillframe's operations part of their APIs.

They run inside of Nova's and Cinder's processes, so that they use nothing but the standard library and our table of
paths, and a request that
is not theirs never fails or waits because of them.
"""

from __future__ import annotations

import http.client
import json
import logging
import re
import ssl
from dataclasses import dataclass
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from stillframe import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

LOG = logging.getLogger(__name__)

# As long as the service itself accepts by default.
_MAX_BODY_SIZE: Final = 65536
_TIMEOUT: Final = 30.0
_MOST_TIMEOUT: Final = 3600.0

_NOT_PASSED_BACK: Final = frozenset(
    {
        "connection",
        "keep-alive",
        # The client and the API have their own version between them, in which our resources are always the same.
        "openstack-api-version",
        "x-openstack-nova-api-version",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)
_NO_BODY: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
_URL_MARKS: Final = "/:@!$&'()*+,;=~-._"


@dataclass(frozen=True, slots=True)
class _Resource:
    """Paths of Stillframe's, behind the API's version; with `actions`, only a POST whose body has one of them."""

    path: re.Pattern[str]
    actions: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class _Api:
    """`folder` is what the service itself calls the API; `versions` match what it is mounted at, `version` is ours."""

    folder: str
    versions: re.Pattern[str]
    version: str
    resources: tuple[_Resource, ...]


def _api(api: paths.Api, versions: str) -> _Api:
    resources = tuple(_resource(paths.behind_version(one.path), one.actions) for one in api.additions)
    return _Api(api.folder, re.compile(versions), api.version, resources)


def _resource(path: str, actions: tuple[str, ...]) -> _Resource:
    if not actions:
        return _Resource(re.compile(f"{path}(/.*)?", re.DOTALL))
    return _Resource(re.compile(f"{path}/?"), frozenset(actions) | {action.replace("-", "_") for action in actions})


_NOVA: Final = _api(paths.NOVA, r"/v2(\.1)?")
_CINDER: Final = _api(paths.CINDER, re.escape(paths.CINDER.version))


def nova(_global_conf: Mapping[str, str], **options: str) -> Callable[[WSGIApplication], Filter]:
    """paste.filter_factory for Nova's API; raises `ValueError` or `OSError` for options it cannot work with."""
    service = _service(options)
    return lambda app: Filter(app, _NOVA, service)


def cinder(_global_conf: Mapping[str, str], **options: str) -> Callable[[WSGIApplication], Filter]:
    """paste.filter_factory for Cinder's API; raises `ValueError` or `OSError` for options it cannot work with."""
    service = _service(options)
    return lambda app: Filter(app, _CINDER, service)


def _service(options: Mapping[str, str]) -> _Service:
    unknown = sorted(options.keys() - {"endpoint", "timeout", "cafile", "max_body_size"})
    if unknown:
        raise ValueError(f"the filter of Stillframe has no option {unknown[0]}")
    endpoint = urlsplit(options.get("endpoint", "http://127.0.0.1:8790"))
    superfluous = endpoint.username or endpoint.query or endpoint.fragment
    if endpoint.scheme not in ("http", "https") or not endpoint.hostname or superfluous:
        raise ValueError("endpoint of the filter of Stillframe must be like http://127.0.0.1:8790")
    if "cafile" in options and endpoint.scheme != "https":
        raise ValueError("cafile of the filter of Stillframe is of use with an https endpoint only")
    timeout, max_body_size = float(options.get("timeout", _TIMEOUT)), int(options.get("max_body_size", _MAX_BODY_SIZE))
    if not 0 < timeout <= _MOST_TIMEOUT or max_body_size <= 0:
        raise ValueError("timeout (up to an hour) and max_body_size of the filter of Stillframe must be more than 0")
    tls = ssl.create_default_context(cafile=options.get("cafile")) if endpoint.scheme == "https" else None
    base = endpoint.path.rstrip("/")
    return _Service(endpoint.hostname, endpoint.port, base, tls, timeout, max_body_size)


@dataclass(frozen=True, slots=True)
class _Service:
    """Where Stillframe is; `timeout` in seconds, for each wait on the network; `max_body_size` in bytes."""

    host: str
    port: int | None
    base: str
    tls: ssl.SSLContext | None
    timeout: float
    max_body_size: int

    def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> _Reply:
        """Raises `OSError` or `http.client.HTTPException` where there is no whole answer."""
        connection = (
            http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
            if self.tls is None
            else http.client.HTTPSConnection(self.host, self.port, timeout=self.timeout, context=self.tls)
        )
        try:
            connection.request(method, self.base + target, body, {**headers, "Connection": "close"})
            answer = connection.getresponse()
            return _Reply(f"{answer.status} {answer.reason}", answer.getheaders(), answer.read(), answer.status)
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class _Reply:
    status: str
    headers: list[tuple[str, str]]
    body: bytes
    code: int

    def headers_passed_back(self, method: str) -> Iterator[tuple[str, str]]:
        """Those that are about the reply, and not about the connection that it came over."""
        names = {name.lower(): value for name, value in self.headers}
        named = {name.strip().lower() for name in names.get("connection", "").split(",")}
        yield from ((name, value) for name, value in self.headers if name.lower() not in _NOT_PASSED_BACK | named)
        if "content-length" not in names and method != "HEAD" and self.code not in _NO_BODY:
            yield "Content-Length", str(len(self.body))


@dataclass(frozen=True, slots=True)
class _Call:
    """A request that is Stillframe's: its path there, and the prefix that the client sees before that path."""

    path: str
    prefix: str
    body: bytes | None


class Filter:
    """The WSGI application `app` with Stillframe's operations in front of it."""

    def __init__(self, app: WSGIApplication, api: _Api, service: _Service) -> None:
        self._app = app
        self._api = api
        self._service = service

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            call = self._recognise(environ)
        except Exception:  # whatever is wrong here, the cloud's own API goes on
            LOG.exception("the request is left to the API, for Stillframe's filter cannot tell whose it is")
            call = None
        if call is None:
            return self._app(environ, start_response)
        if call.body is None:
            body = self._read_all(environ)
            if body is None:
                message = f"The body of the request is longer than {self._service.max_body_size} bytes."
                return _refuse(environ, start_response, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "overLimit", message)
        else:
            body = call.body
        return self._pass_on(environ, start_response, call, body)

    def _recognise(self, environ: WSGIEnvironment) -> _Call | None:
        mount, path = _mount(environ, self._api.versions)
        for resource in self._api.resources:
            if mount is None or not resource.path.fullmatch(path):
                continue
            body = None
            if resource.actions is not None:
                body = self._peek(environ)
                if body is None or not _names_one_of(body, resource.actions):
                    continue
            prefix, folder = mount, ""
            if mount.endswith(self._api.folder):
                # The service builds its links with its folders where the request came with one.
                prefix, folder = mount.removesuffix(self._api.folder), self._api.folder
            return _Call(f"{folder}{self._api.version}{path}", prefix, body)
        return None

    def _peek(self, environ: WSGIEnvironment) -> bytes | None:
        """The body of an action, which the application finds in its place again; None if it is not to be looked at."""
        length = _content_length(environ)
        if environ["REQUEST_METHOD"] != "POST" or environ.get("HTTP_CONTENT_ENCODING", "identity") != "identity":
            return None
        if length is None or not 0 < length <= self._service.max_body_size:
            return None
        body = _read(environ, length)
        environ["wsgi.input"] = BytesIO(body)
        return body

    def _read_all(self, environ: WSGIEnvironment) -> bytes | None:
        """The body of a request that is Stillframe's by its path; None if there is too much of it."""
        limit = self._service.max_body_size
        length = _content_length(environ)
        if length is not None:
            return _read(environ, length) if length <= limit else None
        # Without a length, reading may never end; but where the server has undone chunks, it does.
        if "HTTP_TRANSFER_ENCODING" not in environ or not environ.get("wsgi.input_terminated"):
            return b""
        body = _read(environ, limit + 1)
        return body if len(body) <= limit else None

    def _pass_on(
        self, environ: WSGIEnvironment, start_response: StartResponse, call: _Call, body: bytes
    ) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        target = quote(call.path, safe=_URL_MARKS, encoding="latin-1")
        if environ.get("QUERY_STRING"):
            target += "?" + quote(environ["QUERY_STRING"], safe=_URL_MARKS + "?%[]", encoding="latin-1")
        try:
            reply = self._service.ask(method, target, dict(_headers(environ, call)), body or None)
        except (OSError, http.client.HTTPException) as error:
            LOG.warning("Stillframe does not answer %s %s: %r", method, quote(call.path, encoding="latin-1"), error)
            message = "The snapshot service does not answer; try again later."
            return _refuse(environ, start_response, HTTPStatus.SERVICE_UNAVAILABLE, "serviceUnavailable", message)
        start_response(reply.status, list(reply.headers_passed_back(method)))
        return [reply.body]


def _mount(environ: WSGIEnvironment, versions: re.Pattern[str]) -> tuple[str | None, str]:
    """What comes before the API's version in the request's path (None: there is no version), and what comes after."""
    script, path = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
    parent, slash, last = script.rstrip("/").rpartition("/")
    if versions.fullmatch(slash + last):
        return parent, path
    found = re.search(f"{versions.pattern}(?=/)", path)
    return (None, path) if found is None else (script.rstrip("/") + path[: found.start()], path[found.end() :])


def _content_length(environ: WSGIEnvironment) -> int | None:
    said = environ.get("CONTENT_LENGTH", "")
    return int(said) if said.isascii() and said.isdecimal() else None


def _read(environ: WSGIEnvironment, length: int) -> bytes:
    """Up to `length` bytes: fewer only at the body's end, for one `read` may bring less than there is."""
    body = b""
    while len(body) < length and (more := environ["wsgi.input"].read(length - len(body))):
        body += more
    return body


def _names_one_of(body: bytes, actions: frozenset[str]) -> bool:
    try:
        document: Any = json.loads(body.decode())
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and len(document) == 1 and not actions.isdisjoint(document)


def _headers(environ: WSGIEnvironment, call: _Call) -> Iterator[tuple[str, str]]:
    """All that the service is told: who the caller is, it finds out by the token alone."""
    if "HTTP_X_AUTH_TOKEN" in environ:
        yield "X-Auth-Token", environ["HTTP_X_AUTH_TOKEN"]
    if environ.get("CONTENT_TYPE"):
        yield "Content-Type", environ["CONTENT_TYPE"]
    if "HTTP_CONTENT_ENCODING" in environ:
        yield "Content-Encoding", environ["HTTP_CONTENT_ENCODING"]
    # One id for all that a client's request leads to: the client's own, else the one that the API gave it.
    request_id = environ.get("openstack.global_request_id") or environ.get("openstack.request_id")
    if request_id or "HTTP_X_OPENSTACK_REQUEST_ID" in environ:
        yield "X-Openstack-Request-Id", request_id or environ["HTTP_X_OPENSTACK_REQUEST_ID"]
    # From what the API itself believes, not from what the client says.
    yield "X-Forwarded-Proto", environ["wsgi.url_scheme"]
    if "HTTP_HOST" in environ:
        yield "X-Forwarded-Host", environ["HTTP_HOST"]
    if "REMOTE_ADDR" in environ:
        yield "X-Forwarded-For", environ["REMOTE_ADDR"]
    if call.prefix:
        yield "X-Forwarded-Prefix", quote(call.prefix, safe=_URL_MARKS, encoding="latin-1")


def _refuse(
    environ: WSGIEnvironment, start_response: StartResponse, status: HTTPStatus, name: str, message: str
) -> Iterable[bytes]:
    body = json.dumps({name: {"code": status.value, "message": message}}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response(f"{status.value} {status.phrase}", headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
