"""Users of an htpasswd file, and the roles that the settings grant them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import webob.exc  # type: ignore[import-untyped]

from stillframe.api.auth.guard import IMPLIED_ROLES, Guard, new_caller, wrong_project
from stillframe.domain.errors import Forbidden, InvalidInput, Unauthorized, Unavailable

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from stillframe.service.caller import Caller
    from stillframe.settings import Settings

_GRANT_PARTS: Final = 3


def http_basic(settings: Settings) -> Guard:
    """As [http_basic] says; raises `InvalidInput` for a file or grants that it cannot work with."""
    from oslo_middleware import basic_auth, exceptions  # noqa: PLC0415  # brings bcrypt along

    user_file = settings.api.basic_user_file
    grants = _parse_grants(settings.api.basic_grants)
    try:
        basic_auth.validate_auth_file(user_file)
    except (exceptions.ConfigInvalid, webob.exc.HTTPException, UnicodeError) as error:
        raise InvalidInput(f"{user_file} cannot be used: {error}", "http_basic.user_file") from None

    # Its own middleware reads the global configuration and answers every error behind it with 401, so only its
    # functions are used.
    def identify(environ: WSGIEnvironment, url_project: str | None) -> Caller:
        user_id = _basic_user(basic_auth, user_file, environ)
        projects = grants.get(user_id)
        if not projects:
            raise Forbidden(f"User '{user_id}' has been granted no role in any project.")
        project_id = next(iter(projects)) if url_project is None else url_project
        if project_id not in projects:
            raise wrong_project(project_id, next(iter(projects)))
        return new_caller(environ, user_id, project_id, projects[project_id])

    return Guard(identify, challenge='Basic realm="stillframe", charset="UTF-8"')


def _basic_user(basic_auth: Any, user_file: str, environ: WSGIEnvironment) -> str:
    try:
        user_id, password = basic_auth.parse_token(basic_auth.parse_header(environ))
    except webob.exc.HTTPException:
        raise Unauthorized("The request you have made requires authentication.") from None
    try:
        basic_auth.authenticate(user_file, user_id, password)
    except webob.exc.HTTPBadRequest:
        raise Unavailable("The credentials cannot be checked at present.") from None
    # bcrypt refuses passwords of more than 72 bytes and those with a NUL.
    except (webob.exc.HTTPUnauthorized, ValueError):
        raise Unauthorized("The credentials are not right.") from None
    return str(user_id)


def _parse_grants(grants: tuple[str, ...]) -> Mapping[str, Mapping[str, frozenset[str]]]:
    parsed: dict[str, dict[str, frozenset[str]]] = defaultdict(dict)
    for grant in grants:
        parts = grant.strip().split(":")
        if len(parts) != _GRANT_PARTS or not all(parts) or parts[2] not in IMPLIED_ROLES:
            raise InvalidInput(
                f"'{grant}' is no grant; it must be USER:PROJECT:ROLE with a role of {', '.join(IMPLIED_ROLES)}",
                "http_basic.grants",
            )
        user_id, project_id, role = parts
        known = parsed[user_id].get(project_id, frozenset())
        parsed[user_id][project_id] = known | IMPLIED_ROLES[role]
    return dict(parsed)
