"""From the bytes of a request to a valid model, or to a refusal that says what is wrong where."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import falcon
from pydantic import BaseModel, ValidationError

from stillframe.api.errors import invalid
from stillframe.api.fields import storable
from stillframe.domain.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stillframe.api.routes import Action, Route

# JSON is UTF-8 (RFC 8259), and its smaller half.
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii"})
_PLAIN: Final = "identity"

Model = TypeVar("Model", bound=BaseModel)


def read_action(request: falcon.Request, route: Route) -> tuple[Action, Any]:
    """The one action that the body names, and its valid arguments."""
    document = _parse(_read(request))
    if not isinstance(document, dict):
        raise InvalidInput("Malformed request body: it must be a JSON object.")
    known = {action.name: action for action in route.actions}
    names = ", ".join(sorted(known))
    if not document:
        raise InvalidInput(f"Malformed request body: it must have one of these keys: {names}")
    for key in document:
        if key.replace("_", "-") not in known:
            raise InvalidInput(f"there is no such key here; these are: {names}", _printable(key))
    if len(document) > 1:
        raise InvalidInput("there must be exactly one action", _printable(list(document)[1]))
    ((key, value),) = document.items()
    action = known[key.replace("_", "-")]
    try:
        return action, action.body.model_validate({} if value is None and not action.body.model_fields else value)
    except ValidationError as error:
        raise invalid(error, key) from None


def read_query(request: falcon.Request, model: type[Model]) -> tuple[Mapping[str, str], Model]:
    """The query as it was sent, and its valid model."""
    params: dict[str, str] = {}
    for name, value in request.params.items():
        if not isinstance(value, str):
            raise InvalidInput("is given more than once", _printable(name))
        params[name] = value
    try:
        return params, model.model_validate(params)
    except ValidationError as error:
        raise invalid(error) from None


def _read(request: falcon.Request) -> bytes:
    kind, parameters = falcon.parse_header(request.content_type or falcon.MEDIA_JSON)
    if kind.strip().lower() != falcon.MEDIA_JSON:
        raise falcon.HTTPUnsupportedMediaType(description="Unsupported Content-Type; it must be application/json.")
    if parameters.get("charset", "utf-8").lower() not in _CHARSETS:
        raise falcon.HTTPUnsupportedMediaType(description="Unsupported charset in Content-Type; it must be utf-8.")
    if (request.get_header("Content-Encoding") or _PLAIN).strip().lower() != _PLAIN:
        raise falcon.HTTPUnsupportedMediaType(
            description="Unsupported Content-Encoding; send the body as it is.", headers={"Accept-Encoding": _PLAIN}
        )
    if request.content_length is not None:
        return request.bounded_stream.read()
    # Whether it has an end without saying its length, only the server knows.
    return request.stream.read() if request.env.get("wsgi.input_terminated") else b""


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except UnicodeDecodeError:
        raise InvalidInput("Malformed request body: it is not UTF-8.") from None
    except RecursionError:
        raise InvalidInput("Malformed request body: it is nested too deeply.") from None
    except ValueError as error:
        raise InvalidInput(f"Malformed request body: it is not JSON: {error}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two equal keys would hide one of two values, and readers disagree on which."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r} occurs twice")
        result[storable(key)] = value
    return result


def _printable(key: str) -> str:
    """An unknown key as it may be repeated in a message."""
    return key if len(key) <= 64 else f"{key[:64]}..."  # noqa: PLR2004  # longer ones only fill the screen
