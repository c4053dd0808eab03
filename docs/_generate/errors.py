"""The errors, from the error tree and from the replies they become."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import falcon
import falcon.testing

from _generate.tables import table
from stillframe.api.errors import install
from stillframe.domain.errors import StillframeError

if TYPE_CHECKING:
    from collections.abc import Iterator


def page() -> Iterator[str]:
    yield "# Errors"
    yield ""
    yield "Every error has a stable code. An instance snapshot whose last operation failed shows it in `fault.code`. A"
    yield "request that is refused is answered with the HTTP status of its error and with a body like this one:"
    yield ""
    yield "```json"
    yield '{"conflictingRequest": {"code": 409, "message": "Another operation is changing instance ..."}}'
    yield "```"
    yield ""
    yield "The first key belongs to the status. A refused request has changed nothing. In the tree below, an error that"
    yield "stands under another one is a special case of it."
    yield ""
    yield from table(("Code", "Meaning", "HTTP status", "First key"), _error_rows())


def _error_rows() -> Iterator[tuple[str, str, str, str]]:
    logging.disable(logging.CRITICAL)
    for kind, depth in _tree(StillframeError, 0):
        reply = _answered(kind("..."))
        name = next(iter(reply.json))
        text = " ".join((kind.__doc__ or "").split("; `path`")[0].split())
        text = "Something of the service's own is wrong." if kind is StillframeError else text.rstrip(".") + "."
        yield f"{'· ' * depth}`{kind.code}`", text, str(reply.status_code), f"`{name}`"
    logging.disable(logging.NOTSET)


def _tree(kind: type[StillframeError], depth: int) -> Iterator[tuple[type[StillframeError], int]]:
    yield kind, depth
    for child in kind.__subclasses__():
        # What a driver tells apart for itself has the code of what it is a case of.
        if child.__module__ == StillframeError.__module__:
            yield from _tree(child, depth + 1)


def _answered(error: StillframeError) -> Any:
    def fail(_self: object, _request: falcon.Request, _response: falcon.Response) -> None:
        raise error

    app: Any = falcon.App()
    install(app, None)
    app.add_route("/", type("Failing", (), {"on_get": fail})())
    return falcon.testing.TestClient(app).simulate_get("/")
