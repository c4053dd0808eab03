"""The OpenAPI document, and a service that does what it says whatever it is sent."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from jsonschema.validators import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from stillframe.api.routes import ROUTES

if TYPE_CHECKING:
    from tests.api.running import Running

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EMPTY = {"os-start", "os_start", "os-stop", "os_stop"}
EXAMPLES = 40


def test_the_document_names_every_route_with_its_errors(api: Running) -> None:
    document = api.call("GET", "/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    for route in ROUTES:
        operation = document["paths"][route.template][route.method.lower()]
        assert operation["summary"] == route.summary
        assert {"400", "500", "503"} < operation["responses"].keys()
        assert ("401" in operation["responses"]) != route.public
    bodies = document["paths"]["/compute/v2.1/{project_id}/servers/{server_id}/action"]["post"]["requestBody"]
    schemas = document["components"]["schemas"]
    titles = [one["$ref"].rpartition("/")[2] for one in bodies["content"]["application/json"]["schema"]["oneOf"]]
    wrappers = {name for title in titles for name in schemas[title]["properties"]}
    assert {"vm-snapshot", "vm_snapshot", "vm-restore", "vm_restore", "os-start", "os-stop"} <= wrappers
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    # Generators of clients name their functions and types by these.
    operations = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert len(set(operations)) == len(operations)
    named = [schema["title"] for schema in schemas.values() if "title" in schema]
    assert len(set(named)) == len(named)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.template}")
def test_whatever_is_sent_is_answered_as_documented(api: Running, route: Any) -> None:
    schema = schemathesis.openapi.from_url(f"{api.url}/openapi.json")
    operation = schema[route.template][route.method]
    instance = api.instance("fuzzed")
    snapshot_id = api.snapshot(instance)
    # Ids that exist lead behind the first 404; generated ones are tried as well.
    known = {
        "project_id": "fuzzed",
        "server_id": instance.id,
        "volume_id": instance.volume_ids[0],
        "id": snapshot_id,
        "snapshot_id": next(iter(api.show(instance, snapshot_id)["snapshots"].values())),
    }

    @seed(20)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def answered(case: Any) -> None:
        for ids in (case.path_parameters or {}, known):
            case.path_parameters = {
                name: known[name] if ids is known else ids[name] for name in (case.path_parameters or {})
            }
            # OpenAPI cannot say that one status has a body for some actions and none for others.
            empty = isinstance(case.body, dict) and EMPTY & case.body.keys()
            case.call_and_validate(base_url=api.url, checks=CHECKS[:2] if empty else CHECKS, session=api.session)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answered()
