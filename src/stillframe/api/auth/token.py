"""The service's own token, which its owner reads from a file."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

from stillframe.api.auth import token_file
from stillframe.api.auth.guard import IMPLIED_ROLES, Guard, new_caller
from stillframe.domain.errors import InvalidInput, Unauthorized

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from stillframe.service.caller import Caller
    from stillframe.settings import Settings

_OWNER: Final = "admin"
_NO_PROJECT: Final = "default"


def token(settings: Settings) -> Guard:
    """Whoever has the token is the administrator; makes the token if there is none.

    Raises `InvalidInput` for a file that cannot be used.
    """
    try:
        expected = token_file.ensure(settings.state_dir).encode()
    except OSError as error:
        path = token_file.path_of(settings.state_dir)
        raise InvalidInput(f"The token of the service cannot be kept in {path}: {error.strerror}.") from None

    def identify(environ: WSGIEnvironment, url_project: str | None) -> Caller:
        given = _given(environ)
        if not given:
            raise Unauthorized("The request you have made requires authentication, by the token of this service.")
        if not hmac.compare_digest(given.encode("latin-1", "replace"), expected):
            raise Unauthorized("The token is not that of this service.")
        return new_caller(environ, _OWNER, url_project or _NO_PROJECT, IMPLIED_ROLES["admin"])

    return Guard(identify, challenge='Bearer realm="stillframe"')


def _given(environ: WSGIEnvironment) -> str:
    if "HTTP_X_AUTH_TOKEN" in environ:
        return str(environ["HTTP_X_AUTH_TOKEN"])
    scheme, _, credentials = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else ""
