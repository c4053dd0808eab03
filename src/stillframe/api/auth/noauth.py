"""Everybody is who they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stillframe.api.auth.guard import IMPLIED_ROLES, Guard, new_caller
from stillframe.domain.errors import Unauthorized

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from stillframe.service.caller import Caller

_NOBODY: Final = "noauth"
_NO_PROJECT: Final = "default"


def noauth() -> Guard:
    """Only for a service that nobody else reaches."""
    return Guard(_identify)


def _identify(environ: WSGIEnvironment, url_project: str | None) -> Caller:
    """As Nova's noauth2: the token is `user:project`, and only the user `admin` is an administrator."""
    user_id, _, token_project = environ.get("HTTP_X_AUTH_TOKEN", "").partition(":")
    user_id = _decoded(user_id) or _NOBODY
    project_id = url_project or _decoded(token_project) or _NO_PROJECT
    return new_caller(environ, user_id, project_id, IMPLIED_ROLES["admin" if user_id == "admin" else "member"])


def _decoded(header: str) -> str:
    """A header's text as its sender wrote it; WSGI hands over its bytes as Latin-1."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeError:
        raise Unauthorized("The credentials are not valid UTF-8.") from None
