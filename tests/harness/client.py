"""Requests to a service in this process, without a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from falcon.testing import TestClient

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication


def client_of(wsgi: WSGIApplication) -> TestClient:
    """A client of a WSGI application, which finds itself on loopback."""
    # The client tells WSGI from ASGI by the signature, which a chain of middleware does not show.
    return TestClient(
        lambda environ, start_response: wsgi(environ, start_response),  # noqa: PLW0108
        headers={"Host": "localhost"},
    )
