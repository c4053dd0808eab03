"""The WSGI application: the route table, and the way of a request from its path to its handler and back."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import falcon
from oslo_context.context import RequestContext

from stillframe.api import errors
from stillframe.api.auth.guard import Guard
from stillframe.api.auth.strategies import build_guard
from stillframe.api.bodies import read_action, read_query
from stillframe.api.exchange import Exchange, Links, Services
from stillframe.api.fields import storable
from stillframe.api.hosts import known_hosts
from stillframe.api.lanes import Lane, choose
from stillframe.api.middleware import ROUTE_KEY, known_only, surround, with_health
from stillframe.api.openapi import build_document
from stillframe.api.peers import METRICS
from stillframe.api.routes import ROUTES, Route
from stillframe.domain.errors import InvalidInput
from stillframe.service.caller import Caller
from stillframe.service.volume_snapshots import VolumeSnapshotService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from pydantic import BaseModel

    from stillframe.service.instance_snapshots import SnapshotService
    from stillframe.service.instances import InstanceService
    from stillframe.service.metrics import Metrics
    from stillframe.service.readiness import Readiness
    from stillframe.service.workers import WorkerService
    from stillframe.settings import Settings

    Responder = Callable[..., None]

_OPENAPI: Final = "/openapi.json"
_EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"
_NOBODY: Final = Caller(user_id="", project_id="", roles=frozenset(), request_id="")


@dataclass(frozen=True, slots=True)
class Application:
    """The WSGI application, and for a server that has threads for each lane of requests the choice of it."""

    wsgi: WSGIApplication
    guard: Guard

    def lane(self, method: str, path: str, authorization: str | None) -> Lane:
        """See `lanes.choose`."""
        return choose(method, path, authorization, self.guard.costly)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi(environ, start_response)


def build_wsgi(
    settings: Settings,
    snapshots: SnapshotService,
    instances: InstanceService,
    workers: WorkerService,
    metrics: Metrics,
    readiness: Readiness,
) -> Application:
    """The whole API; raises `InvalidInput` for settings it cannot work with."""
    services = Services(
        snapshots=snapshots,
        instances=instances,
        volume_snapshots=VolumeSnapshotService(snapshots),
        workers=workers,
        metrics=metrics,
        max_limit=settings.api.max_limit,
        public_endpoint=settings.api.public_endpoint,
    )
    guard = build_guard(settings)
    if guard.usable is not None:
        metrics.watch_file("users", guard.usable)
    app: falcon.App[Any, Any] = falcon.App()
    # Every reply with a body says its type; an empty one is of none.
    app.resp_options.default_media_type = None  # type: ignore[assignment]
    app.req_options.strip_url_path_trailing_slash = True
    app.req_options.keep_blank_qs_values = True
    app.req_options.auto_parse_qs_csv = False
    errors.install(app, guard.challenge)
    resources: dict[str, dict[str, Responder]] = defaultdict(dict)
    for route in ROUTES:
        dispatch = _Dispatch(route, services, guard)
        for status in {one.status for one in route.actions} or {route.status}:
            metrics.expect_requests(route.method, route.template, status)
        for form in route.forms():
            resources[form][route.method] = dispatch.respond
    resources[_OPENAPI]["GET"] = _fixed(_document())
    resources[METRICS]["GET"] = _exposition(metrics)
    for template, responders in resources.items():
        app.add_route(template, _resource(responders))
    public = {form for route in ROUTES if route.public for form in route.forms()} | {_OPENAPI, METRICS}
    return Application(surround(app, frozenset(public), guard, metrics, readiness, settings), guard)


def build_observation(settings: Settings, metrics: Metrics, readiness: Readiness) -> WSGIApplication:
    """What a process shows of itself that serves no API: `/metrics`, `/healthcheck` and `/readiness`."""
    app: falcon.App[Any, Any] = falcon.App()
    app.add_route(METRICS, _resource({"GET": _exposition(metrics)}))
    hosts = known_hosts(settings.worker.metrics_bind_host, allowed=settings.api.allowed_hosts)
    return known_only(with_health(app, readiness, settings), hosts, settings)


@cache
def _document() -> bytes:
    """It is the same for all settings, and to make it is the longest part of a start."""
    return json.dumps(build_document(ROUTES)).encode()


class _Resource:
    """Falcon's idea of a resource: an object with a method for each of HTTP's."""


def _resource(responders: Mapping[str, Responder]) -> _Resource:
    resource = _Resource()
    for method, responder in responders.items():
        setattr(resource, f"on_{method.lower()}", responder)
    if "GET" in responders:
        resource.on_head = responders["GET"]  # type: ignore[attr-defined]  # Falcon leaves out the body
    return resource


def _fixed(document: bytes) -> Responder:
    def respond(request: falcon.Request, response: falcon.Response) -> None:
        request.env[ROUTE_KEY] = _OPENAPI
        response.data = document
        response.content_type = falcon.MEDIA_JSON

    return respond


def _exposition(metrics: Metrics) -> Responder:
    def respond(request: falcon.Request, response: falcon.Response) -> None:
        request.env[ROUTE_KEY] = METRICS
        response.data = metrics.exposition()
        response.content_type = _EXPOSITION

    return respond


@dataclass(frozen=True, slots=True)
class _Dispatch:
    """One route at work: who asks, then what they ask for, then the handler."""

    route: Route
    services: Services
    guard: Guard

    def respond(self, request: falcon.Request, response: falcon.Response, **ids: str) -> None:
        request.env[ROUTE_KEY] = self.route.template
        caller = self._identify(request, ids)
        for name, value in ids.items():
            try:
                storable(value)
            except ValueError as error:
                raise InvalidInput(str(error), name) from None
        params, query = read_query(request, self.route.query) if self.route.query else ({}, None)
        status, handler, body = self.route.status, self.route.handler, None
        if self.route.actions:
            action, body = read_action(request, self.route)
            status, handler = action.status, action.handler
        if handler is None:
            raise TypeError(f"the route {self.route.template} has neither a handler nor actions")
        links = Links(self._base(request), request.path, params)
        exchange = Exchange(self.services, caller, links, ids, query, body)
        _answer(response, status, handler(exchange))

    def _identify(self, request: falcon.Request, ids: Mapping[str, str]) -> Caller:
        if self.route.public:
            return _NOBODY
        caller = self.guard.identify(request.env, ids.get("project_id"))
        # From here on the log's lines of this request say whose it is.
        RequestContext(
            user_id=caller.user_id,
            project_id=caller.project_id,
            roles=sorted(caller.roles),
            request_id=caller.request_id,
            global_request_id=caller.global_request_id,
        )
        return caller

    def _base(self, request: falcon.Request) -> str:
        return self.services.public_endpoint or f"{request.scheme}://{request.netloc}{request.root_path}"


def _answer(response: falcon.Response, status: int, reply: BaseModel | None) -> None:
    response.status = status
    if reply is not None:
        response.content_type = falcon.MEDIA_JSON
        response.data = reply.model_dump_json(by_alias=True).encode()
