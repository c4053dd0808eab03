"""What surrounds the routes: numbering, observing, limiting and guarding requests."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from oslo_context.context import RequestContext
from oslo_middleware import healthcheck, http_proxy_to_wsgi, request_id, sizelimit

from stillframe.api import errors

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from stillframe.api.auth.guard import Guard
    from stillframe.service.metrics import Metrics
    from stillframe.settings import Settings

LOG = logging.getLogger(__name__)

# Where the routing leaves the template that it chose, for the metrics.
ROUTE_KEY: Final = "stillframe.route"

_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH"})
_HEALTH: Final = "/healthcheck"


def surround(
    routes: WSGIApplication, public: frozenset[str], guard: Guard, metrics: Metrics, settings: Settings
) -> WSGIApplication:
    """The chain around the routes; `public` are the paths that need no credentials."""
    app = _guarded(routes, guard, public)
    app = errors.restyled(_limited(app, settings))
    app = _observed(with_health(app, settings), metrics)
    outermost: WSGIApplication = http_proxy_to_wsgi.HTTPProxyToWSGI(
        request_id.RequestId(app, settings.conf), settings.conf
    )
    return outermost


def _guarded(app: WSGIApplication, guard: Guard, public: frozenset[str]) -> WSGIApplication:
    wrapped = guard.wrap(app)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # Whoever looks for the way in is not sent to the identity service first: it may be what is down.
        chosen = app if (environ["PATH_INFO"].rstrip("/") or "/") in public else wrapped
        return chosen(environ, start_response)

    return application


def _limited(app: WSGIApplication, settings: Settings) -> WSGIApplication:
    limiter: Any = sizelimit.RequestBodySizeLimiter(app, settings.conf)
    settings.conf.set_override("max_request_body_size", settings.api.max_body_size, group="oslo_middleware")
    limited: WSGIApplication = limiter
    return limited


def with_health(app: WSGIApplication, settings: Settings) -> WSGIApplication:
    """Answer `/healthcheck` as `[healthcheck]` says, in front of everything else."""
    health: WSGIApplication = healthcheck.Healthcheck(None, settings.conf)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != _HEALTH:
            return app(environ, start_response)
        environ[ROUTE_KEY] = _HEALTH
        return health(environ, start_response)

    return application


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
            return errors.failed(start, error)
        finally:
            seconds = time.monotonic() - started
            method = environ["REQUEST_METHOD"]
            metrics.request_finished(
                method if method in _METHODS else "other", environ.get(ROUTE_KEY, "none"), status, seconds
            )
            path = quote(environ["PATH_INFO"], encoding="latin-1")
            LOG.info('"%s %s" status: %d time: %.4f', quote(method), path, status, seconds)

    return application
