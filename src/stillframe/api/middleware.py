"""What surrounds the routes: numbering, observing, limiting and guarding requests."""

from __future__ import annotations

import logging
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from oslo_context.context import RequestContext
from oslo_middleware import healthcheck, http_proxy_to_wsgi, request_id, sizelimit

from stillframe.api import errors
from stillframe.api.auth.claims import without_claims
from stillframe.api.hosts import known_hosts, only_for, without_foreign_pages
from stillframe.api.peers import METRICS, metrics_for
from stillframe.api.versions import negotiated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from stillframe.api.auth.guard import Guard
    from stillframe.api.hosts import Hosts
    from stillframe.service.metrics import Metrics
    from stillframe.service.readiness import Readiness
    from stillframe.settings import Settings

LOG = logging.getLogger(__name__)

# Where the routing leaves the template that it chose, for the metrics.
ROUTE_KEY: Final = "stillframe.route"

_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH"})
_HEALTH: Final = "/healthcheck"
_READINESS: Final = "/readiness"
_ASKED_FOR_ROUTINELY: Final = frozenset({_HEALTH, METRICS})


def surround(
    routes: WSGIApplication,
    public: frozenset[str],
    guard: Guard,
    metrics: Metrics,
    readiness: Readiness,
    settings: Settings,
) -> WSGIApplication:
    """The chain around the routes; `public` are the paths that need no credentials."""

    def is_public(path: str) -> bool:
        return (path.rstrip("/") or "/") in public

    api = settings.api
    app = without_claims(_guarded(routes, guard, is_public))
    app = negotiated(errors.restyled(_limited(app, settings)))
    app = _known_methods(without_foreign_pages(app, is_public, api.public_endpoint))
    app = http_proxy_to_wsgi.HTTPProxyToWSGI(with_health(app, readiness, settings), settings.conf)
    # Where the connection itself comes from, and the host that the request itself is addressed to, before a proxy's
    # headers say what the client has asked for.
    app = metrics_for(api.metrics_peers, app)
    app = known_only(app, known_hosts(api.bind_host, api.public_endpoint, api.allowed_hosts), settings)
    outermost: WSGIApplication = request_id.RequestId(_observed(app, metrics), settings.conf)
    return outermost


def _known_methods(app: WSGIApplication) -> WSGIApplication:
    """Refuse methods that no resource could ever have, see RFC 9110, section 15.6.2."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in _METHODS:
            return app(environ, start_response)
        LOG.info("refused with 501: there is no such method")
        return errors.refuse(environ, start_response, HTTPStatus.NOT_IMPLEMENTED, "There is no such method.")

    return application


def _guarded(app: WSGIApplication, guard: Guard, is_public: Callable[[str], bool]) -> WSGIApplication:
    wrapped = guard.wrap(app)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # Whoever looks for the way in is not sent to the identity service first: it may be what is down.
        chosen = app if is_public(environ["PATH_INFO"]) else wrapped
        return chosen(environ, start_response)

    return application


def known_only(app: WSGIApplication, hosts: Hosts, settings: Settings) -> WSGIApplication:
    """Refuse requests to other hosts, around `with_health`.

    `/healthcheck` and `/readiness` answer to any: balancers ask for them without a name or with one of their own, and
    the answer is a word or two, unless `[healthcheck] detailed` makes it more.
    """
    tells = settings.conf.healthcheck.detailed
    return only_for(hosts, app, lambda path: path == _READINESS or (path == _HEALTH and not tells))


def _limited(app: WSGIApplication, settings: Settings) -> WSGIApplication:
    limiter: Any = sizelimit.RequestBodySizeLimiter(app, settings.conf)
    settings.conf.set_override("max_request_body_size", settings.api.max_body_size, group="oslo_middleware")
    limited: WSGIApplication = limiter
    return limited


def with_health(app: WSGIApplication, readiness: Readiness, settings: Settings) -> WSGIApplication:
    """Answer in front of everything else: `/healthcheck` as `[healthcheck]` says, `/readiness` by the database."""
    health: WSGIApplication = healthcheck.Healthcheck(None, settings.conf)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] not in (_HEALTH, _READINESS):
            return app(environ, start_response)
        environ[ROUTE_KEY] = environ["PATH_INFO"]
        if environ["PATH_INFO"] == _HEALTH:
            return health(environ, start_response)
        return _ready(readiness, environ, start_response)

    return application


def _ready(readiness: Readiness, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return errors.refuse(
            environ, start_response, HTTPStatus.METHOD_NOT_ALLOWED, "The method is not allowed for this resource."
        )
    problem = readiness.problem()
    if problem is not None:
        return errors.refuse(environ, start_response, HTTPStatus.SERVICE_UNAVAILABLE, problem)
    start_response("200 OK", [("Content-Type", "text/plain; charset=UTF-8"), ("Content-Length", "5")])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [b"ready"]


def _observed(app: WSGIApplication, metrics: Metrics) -> WSGIApplication:
    """Count, measure and log each request, under its id; and keep whatever breaks on the way from the client."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        RequestContext(
            request_id=environ[request_id.ENV_REQUEST_ID], global_request_id=environ.get(request_id.GLOBAL_REQ_ID)
        )
        started = time.monotonic()
        status = 500

        def start(line: str, *arguments: Any) -> Any:
            nonlocal status
            status = int(line.split(" ", 1)[0])
            return start_response(line, *arguments)

        try:
            return app(environ, start)
        except Exception as error:  # noqa: BLE001  # no error may reach the server, which would show it
            return errors.failed(environ, start, error)
        finally:
            seconds = time.monotonic() - started
            method = environ["REQUEST_METHOD"]
            metrics.request_finished(
                method if method in _METHODS else "other", environ.get(ROUTE_KEY, "none"), status, seconds
            )
            path = quote(environ["PATH_INFO"], encoding="latin-1")
            level = logging.DEBUG if _is_routine(environ.get(ROUTE_KEY), status) else logging.INFO
            LOG.log(level, '"%s %s" status: %d time: %.4f', quote(method), path, status, seconds)

    return application


def _is_routine(route: object, status: int) -> bool:
    """Whether it is what programs ask for every few seconds: if each were told, the log would tell of little else."""
    # What is wrong while it is not ready is told once a minute by what is wrong.
    return route == _READINESS or (route in _ASKED_FOR_ROUTINELY and status < HTTPStatus.BAD_REQUEST)
