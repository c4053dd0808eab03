"""The API, from its OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from _generate.tables import table
from stillframe.api.openapi import build_document
from stillframe.api.routes import ROUTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import BaseModel

    from stillframe.api.routes import Action, Route


def page() -> Iterator[str]:
    document = build_document(ROUTES)
    schemas: Mapping[str, Any] = document["components"]["schemas"]
    yield "# API"
    yield ""
    yield from (document["info"]["description"], "")
    yield "The service itself serves this as an OpenAPI document at `/openapi.json`. Every reply carries"
    yield "`X-Openstack-Request-Id`, and the lines of the log that belong to the request carry the same id. What the"
    yield "replies of a refused request look like is said in [errors](errors.md)."
    yield ""
    for route in ROUTES:
        yield from _operation(route, document["paths"][route.template][route.method.lower()])
    yield "## Bodies and replies"
    yield ""
    # What the tables above have told already.
    told = ("Fault_", "Nothing"), ("Action", "ActionUnderscored")
    for name in sorted(schemas):
        if not name.startswith(told[0]) and not name.endswith(told[1]):
            yield from _schema(name, schemas[name])


def _operation(route: Route, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {route.summary}"
    yield ""
    yield f"`{route.method} {route.template}`{', without credentials' if route.public else ''}"
    yield ""
    query = [one for one in operation["parameters"] if one["in"] == "query"]
    if query:
        rows = ((f"`{one['name']}`", _yes(one["required"]), _shape(one["schema"])) for one in query)
        yield from table(("Parameter", "Required", "Value"), rows)
    if route.actions:
        yield from table(("Key of the body", "What it does", "Value", "Answer"), map(_action, route.actions))
    else:
        yield f"Answers {_answer(route.status, route.reply)}."
        yield ""
    successes = {str(one.status) for one in route.actions or (route,)}
    yield f"Refusals and failures: {', '.join(status for status in operation['responses'] if status not in successes)}."
    yield ""


def _action(action: Action) -> tuple[str, str, str, str]:
    body = _linked(action.body) if action.body.model_fields else "`null` or `{}`"
    return f"`{action.name}`", f"{action.summary}.", body, _answer(action.status, action.reply)


def _answer(status: int, reply: type[BaseModel] | None) -> str:
    return f"{status} with {_linked(reply) if reply else 'an empty body'}"


def _linked(model: type[BaseModel]) -> str:
    return f"[{model.__name__}](#{model.__name__.lower()})"


def _schema(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {name}"
    yield ""
    if "description" in schema:
        yield from (" ".join(schema["description"].split()), "")
    properties: Mapping[str, Any] = schema.get("properties", {})
    required = schema.get("required", ())
    rows = ((f"`{key}`", _yes(key in required), _shape(value)) for key, value in properties.items())
    if properties:
        yield from table(("Key", "Required", "Value"), rows)


def _yes(value: object) -> str:
    return "yes" if value else "no"


def _shape(schema: Mapping[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    if alternatives:
        return " or ".join(dict.fromkeys(_shape(one) for one in alternatives)) + _extras(schema)
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_shape(schema['items'])}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_shape(schema['additionalProperties'])}"
    return f"{kind}{_extras(schema)}"


def _extras(schema: Mapping[str, Any]) -> str:
    words = {"minLength": "at least {} long", "maxLength": "at most {} long", "minimum": "{} or more"}
    told = [text.format(schema[key]) for key, text in words.items() if key in schema]
    if "maximum" in schema:
        told.append(f"{schema['maximum']} at most")
    if "pattern" in schema:
        told.append(f"matching `{schema['pattern']}`")
    if schema.get("default") is not None:
        told.append(f"`{str(schema['default']).lower()}` if left out")
    if "description" in schema:
        told.append(schema["description"])
    return f" ({'; '.join(told)})" if told else ""
