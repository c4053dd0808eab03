"""Of the one table of routes each filter takes what its cloud lacks, and nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import webob  # type: ignore[import-untyped]
from paste import deploy

from stillframe.api.routes import ROUTES, Route
from stillframe.paths import CINDER, NOVA
from tests.filters.cloud import closed_port, configured

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from wsgiref.types import WSGIApplication

#: What Nova and Cinder have themselves: the service has it, too, for clients that know no cloud but it.
THEIRS = {
    "GET /",
    "GET /compute",
    "GET /volume",
    "GET /compute/v2.1",
    "GET /volume/v3",
    "GET /compute/v2.1/{project_id}/servers",
    "GET /compute/v2.1/{project_id}/servers/detail",
    "GET /compute/v2.1/{project_id}/servers/{server_id}",
    "GET /volume/v3/{project_id}/volumes",
    "GET /volume/v3/{project_id}/volumes/detail",
    "GET /volume/v3/{project_id}/volumes/{volume_id}",
    "GET /volume/v3/{project_id}/snapshots",
    "GET /volume/v3/{project_id}/snapshots/detail",
    "GET /volume/v3/{project_id}/snapshots/{snapshot_id}",
    "GET /compute/v2.1/{project_id}/servers/{server_id}/os-volume_attachments",
    "GET /compute/v2.1/{project_id}/servers/{server_id}/os-volume_attachments/{volume_id}",
    "GET /volume/v3/{project_id}/os-services",
    "POST /compute/v2.1/{project_id}/servers/{server_id}/action os-start",
    "POST /compute/v2.1/{project_id}/servers/{server_id}/action os-stop",
}
IDS = {"project_id": "p", "server_id": "s", "volume_id": "v", "snapshot_id": "c", "id": "i"}


def operations() -> Iterator[tuple[str, Route, str | None]]:
    """Every operation of the table by its name, with its route and its action."""
    for route in ROUTES:
        name = f"{route.method} {route.template}"
        if route.actions:
            yield from ((f"{name} {action.name}", route, action.name) for action in route.actions)
        else:
            yield name, route, None


@pytest.fixture
def front(tmp_path: Path) -> Iterator[WSGIApplication]:
    """Both APIs with their filters, and no service behind these: what they take is unavailable."""
    with closed_port() as endpoint:
        yield deploy.loadapp(configured(tmp_path, endpoint=endpoint))


def taken(front: WSGIApplication, route: Route, form: str, key: str | None) -> bool:
    body = {} if key is None else {"body": json.dumps({key: {}}).encode(), "content_type": "application/json"}
    asked = webob.Request.blank(form.format(**IDS), method=route.method, **body)
    reply = asked.get_response(front)
    assert reply.status_int in (299, 503), reply.body
    # WSGI's validator wants it read to its end.
    assert reply.body
    return bool(reply.status_int == 503)


def test_each_operation_is_taken_in_all_its_forms_unless_the_cloud_has_it(front: WSGIApplication) -> None:
    found = {name: route for name, route, _action in operations()}
    assert found.keys() >= THEIRS, "the table has lost what is named here"
    for name, route, action in operations():
        for form in route.forms():
            for key in {action, action and action.replace("-", "_")}:
                assert taken(front, route, form, key) == (name not in THEIRS), (name, form, key)


def test_nothing_is_taken_that_the_table_does_not_have() -> None:
    for api in (NOVA, CINDER):
        for one in api.additions:
            routes = [route for route in ROUTES if route.template == api.template(one.path)]
            assert routes, f"nobody answers {one.path}"
            assert set(one.actions) <= {action.name for route in routes for action in route.actions}
