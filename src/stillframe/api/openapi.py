"""The OpenAPI document, made from the route table and its models."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from pydantic.json_schema import models_json_schema

from stillframe.api.errors import FAULT_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

    from stillframe.api.routes import Action, Route

# Of the contract, not of the package: clients care for the former only.
_CONTRACT: Final = "1.0"
_REFERENCE: Final = "#/components/schemas/{model}"
_REQUEST_ID: Final = {
    "X-Openstack-Request-Id": {"required": True, "schema": {"type": "string", "pattern": "^req-[0-9a-f-]{36}$"}}
}
_MEANINGS: Final = {
    400: "The request is malformed, or the present state forbids it.",
    401: "No or bad credentials.",
    403: "The caller's roles do not allow it.",
    404: "Not there, or not in the caller's project.",
    409: "Another operation runs.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    500: "Something broke.",
    503: "The platform behind is down.",
}
# What a reply is good for next, for clients and tools that walk by the document alone. A link with a body of its own
# would be valid, but openapi-generator takes no document with one.
_LINKS: Final[Mapping[str, Mapping[str, Any]]] = {
    "Act on an instance": {
        name: {
            "operationId": name,
            "parameters": {"project_id": "$request.path.project_id", "id": "$response.body#/instance_snapshot/id"},
        }
        for name in ("show_an_instance_snapshot", "update_an_instance_snapshot", "delete_an_instance_snapshot")
    },
}
_ABOUT: Final = (
    "Snapshots of all volumes of a virtual machine, and their restore in place. Every path is also served without its "
    "`/compute` or `/volume` prefix, and without the project id. Keys of request bodies may be written with hyphens or "
    "underscores."
)


def build_document(routes: Iterable[Route]) -> dict[str, Any]:
    """The document for all routes, each under the first of the paths it is served at."""
    routes = tuple(routes)
    schemas = _schemas(routes)
    for name in FAULT_NAMES.values():
        schemas[_fault_schema(name)] = _fault(name)
    for route in routes:
        for action in route.actions:
            schemas.update(_wrappers(action))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Stillframe", "version": _CONTRACT, "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _schemas(routes: Iterable[Route]) -> dict[str, Any]:
    models: dict[type[BaseModel], Any] = {}
    for route in routes:
        for model in (route.reply, *(action.reply for action in route.actions)):
            if model is not None:
                models[model] = "serialization"
        models.update({action.body: "validation" for action in route.actions})
        if route.query is not None:
            models[route.query] = "validation"
    _, definitions = models_json_schema(list(models.items()), ref_template=_REFERENCE)
    found: dict[str, Any] = definitions["$defs"]
    for model, mode in models.items():
        if mode == "validation":
            found[model.__name__]["properties"] = {
                name: _without_default(schema) for name, schema in found[model.__name__].get("properties", {}).items()
            }
    return found


def _without_default(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Generators make keys with a default ones that must be given (TypeScript), or code that does not compile (Go)."""
    told = {key: value for key, value in schema.items() if key != "default"}
    if schema.get("default") is not None:
        left_out = f"`{json.dumps(schema['default'])}` if left out"
        told["description"] = f"{left_out}; {schema['description']}" if "description" in schema else left_out
    return told


def _operation(route: Route, schemas: Mapping[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        # What generators of clients call the operation.
        "operationId": re.sub(r"[^a-z]+", "_", route.summary.replace("'", "").lower()),
        "summary": route.summary,
        "parameters": [*_path_parameters(route.template), *_query_parameters(route.query, schemas)],
        "responses": _responses(route),
        "security": [] if route.public else [{"token": []}, {"basic": []}, {}],
    }
    if route.actions:
        names = [name for action in route.actions for name in _wrappers(action)]
        schema = {"oneOf": [{"$ref": _REFERENCE.format(model=name)} for name in names]}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _path_parameters(template: str) -> list[dict[str, Any]]:
    names = [part.split("}")[0] for part in template.split("{")[1:]]
    schema = {"type": "string", "minLength": 1}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]


def _query_parameters(model: type[BaseModel] | None, schemas: Mapping[str, Any]) -> list[dict[str, Any]]:
    if model is None:
        return []
    schema = schemas[model.__name__]
    return [
        {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": _given(value)}
        for name, value in schema["properties"].items()
    ]


def _given(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A query's parameter that may be left out is null in its model, but can never be sent as null."""
    alternatives = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    return alternatives[0] if alternatives else schema


def _wrappers(action: Action) -> dict[str, Any]:
    """A schema for each spelling of an action's key, under a name of its own: generators of clients go by those."""
    reference: dict[str, Any] = {"$ref": _REFERENCE.format(model=action.body.__name__)}
    value = reference if action.body.model_fields else {"anyOf": [{"type": "null"}, reference]}
    name = "".join(word.capitalize() for word in action.name.split("-"))
    spellings = {action.name: f"{name}Action", action.name.replace("-", "_"): f"{name}ActionUnderscored"}
    return {
        title: {
            "title": title,
            "description": action.summary,
            "type": "object",
            "properties": {spelling: value},
            "required": [spelling],
            "additionalProperties": False,
        }
        for spelling, title in spellings.items()
    }


def _responses(route: Route) -> dict[str, Any]:
    replies: dict[int, list[type[BaseModel] | None]] = {}
    for status, reply in [(one.status, one.reply) for one in route.actions] or [(route.status, route.reply)]:
        replies.setdefault(status, []).append(reply)
    responses = {str(status): _success(models) for status, models in replies.items()}
    if route.summary in _LINKS:
        responses["200"]["links"] = _LINKS[route.summary]
    statuses = [400, 500, 503] if route.public else [400, 401, 403, 404, 500, 503]
    # Only what has a body can be too large, only what changes something can be in the way of something else.
    statuses += [413, 415] if route.actions else []
    statuses += [] if route.method == "GET" else [409]
    for status in sorted(statuses):
        reference = {"$ref": _REFERENCE.format(model=_fault_schema(FAULT_NAMES[status]))}
        responses[str(status)] = {
            "description": _MEANINGS[status],
            "headers": _REQUEST_ID,
            "content": {"application/json": {"schema": reference}},
        }
    return responses


def _success(models: list[type[BaseModel] | None]) -> dict[str, Any]:
    response: dict[str, Any] = {"description": "Accepted or done.", "headers": _REQUEST_ID}
    schemas = [{"$ref": _REFERENCE.format(model=model.__name__)} for model in models if model is not None]
    if schemas:
        response["content"] = {"application/json": {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}}
    return response


def _fault_schema(name: str) -> str:
    return f"Fault_{name}"


def _fault(name: str) -> dict[str, Any]:
    inner = {
        "type": "object",
        "properties": {"code": {"type": "integer"}, "message": {"type": "string"}},
        "required": ["code", "message"],
    }
    return {"type": "object", "properties": {name: inner}, "required": [name], "additionalProperties": False}
