"""Who is asking: Keystone's tokens, users of an htpasswd file, or anybody on a loopback address."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import webob.exc  # type: ignore[import-untyped]

from stillframe.domain.errors import Forbidden, InvalidInput, Unauthorized, Unavailable
from stillframe.service.caller import Caller

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment

    from stillframe.settings import Settings

# A role of a persona brings the ones below it along; Keystone expands its roles by itself.
_IMPLIED: Final = {
    "admin": frozenset({"admin", "member", "reader"}),
    "member": frozenset({"member", "reader"}),
    "reader": frozenset({"reader"}),
}
_NOBODY: Final = "noauth"
_NO_PROJECT: Final = "default"
_GRANT_PARTS: Final = 3

Identify = Callable[["WSGIEnvironment", str | None], Caller]


@dataclass(frozen=True, slots=True)
class Guard:
    """One way to authenticate.

    `identify` takes the request and its path's project id, and raises `Unauthorized`, `Forbidden`, or `InvalidInput`
    for another project than the caller's. `wrap` goes around the application. `challenge` is WWW-Authenticate's value
    where `wrap` does not see to it.
    """

    identify: Identify
    wrap: Callable[[WSGIApplication], WSGIApplication] = lambda app: app
    challenge: str | None = None


def build_guard(settings: Settings) -> Guard:
    """The guard that the settings name; raises `InvalidInput` for settings it cannot work with."""
    if settings.api.auth_strategy == "keystone":
        return _keystone(settings)
    if settings.api.auth_strategy == "http_basic":
        return _http_basic(settings)
    return Guard(_identify_anybody)


def require_safe_binding(settings: Settings) -> None:
    """Raises `InvalidInput` if everybody in the network could act as anybody."""
    host = settings.api.bind_host
    if settings.api.auth_strategy == "noauth" and not _is_loopback(host):
        raise InvalidInput(
            f"with auth_strategy = noauth the service listens only on a loopback address, and '{host}' is none; "
            "use keystone or http_basic",
            "bind_host",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _caller(environ: WSGIEnvironment, user_id: str, project_id: str, roles: frozenset[str]) -> Caller:
    return Caller(
        user_id=user_id,
        project_id=project_id,
        roles=roles,
        request_id=environ["openstack.request_id"],
        global_request_id=environ.get("openstack.global_request_id"),
        system_scope=environ.get("HTTP_OPENSTACK_SYSTEM_SCOPE"),
    )


def _wrong_project(url_project: str, project_id: str) -> InvalidInput:
    return InvalidInput(
        f"Malformed request URL: URL's project_id '{url_project}' doesn't match Context's project_id '{project_id}'"
    )


def _identify_anybody(environ: WSGIEnvironment, url_project: str | None) -> Caller:
    """As Nova's noauth2: the token is `user:project`, and only the user `admin` is an administrator."""
    if "HTTP_ORIGIN" in environ:
        # Nothing but the address protects this mode, and web pages in a browser on this host get past that.
        raise Forbidden("Requests from web pages are not accepted with auth_strategy = noauth.")
    user_id, _, token_project = environ.get("HTTP_X_AUTH_TOKEN", "").partition(":")
    user_id = _decoded(user_id) or _NOBODY
    project_id = url_project or _decoded(token_project) or _NO_PROJECT
    return _caller(environ, user_id, project_id, _IMPLIED["admin" if user_id == "admin" else "member"])


def _decoded(header: str) -> str:
    """A header's text as its sender wrote it; WSGI hands over its bytes as Latin-1."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeError:
        raise Unauthorized("The credentials are not valid UTF-8.") from None


def _keystone(settings: Settings) -> Guard:
    # Imported only where it is used: it brings requests, caches and cryptography along, about 20 MiB of memory.
    from keystonemiddleware import auth_token  # noqa: PLC0415

    def wrap(app: WSGIApplication) -> WSGIApplication:
        # It decides by itself: leaving that to us, it would let an identity service that is down look like bad
        # credentials, and clients throw good ones away.
        options = {"oslo_config_config": settings.conf, "delay_auth_decision": False}
        wrapped: WSGIApplication = auth_token.AuthProtocol(app, options)
        return wrapped

    return Guard(_identify_by_token, wrap)


def _identify_by_token(environ: WSGIEnvironment, url_project: str | None) -> Caller:
    if environ.get("HTTP_X_IDENTITY_STATUS") != "Confirmed":
        raise Unauthorized("The request you have made requires authentication.")
    project_id = environ.get("HTTP_X_PROJECT_ID")
    if not project_id:
        raise Forbidden("The token is not scoped to a project.")
    if url_project is not None and url_project != project_id:
        raise _wrong_project(url_project, project_id)
    roles = frozenset(role.strip() for role in environ.get("HTTP_X_ROLES", "").split(",") if role.strip())
    caller = _caller(environ, environ.get("HTTP_X_USER_ID", ""), project_id, roles)
    return replace(caller, token=environ.get("HTTP_X_AUTH_TOKEN"))


def _http_basic(settings: Settings) -> Guard:
    from oslo_middleware import basic_auth, exceptions  # noqa: PLC0415  # brings bcrypt along

    user_file = settings.api.basic_user_file
    grants = _parse_grants(settings.api.basic_grants)
    try:
        basic_auth.validate_auth_file(user_file)
    except (exceptions.ConfigInvalid, webob.exc.HTTPException, UnicodeError) as error:
        raise InvalidInput(f"{user_file} cannot be used: {error}", "http_basic.user_file") from error

    # Its own middleware reads the global configuration and answers every error behind it with 401, so only its
    # functions are used.
    def identify(environ: WSGIEnvironment, url_project: str | None) -> Caller:
        user_id = _basic_user(basic_auth, user_file, environ)
        projects = grants.get(user_id)
        if not projects:
            raise Forbidden(f"User '{user_id}' has been granted no role in any project.")
        project_id = next(iter(projects)) if url_project is None else url_project
        if project_id not in projects:
            raise _wrong_project(project_id, next(iter(projects)))
        return _caller(environ, user_id, project_id, projects[project_id])

    return Guard(identify, challenge='Basic realm="stillframe", charset="UTF-8"')


def _basic_user(basic_auth: Any, user_file: str, environ: WSGIEnvironment) -> str:
    try:
        user_id, password = basic_auth.parse_token(basic_auth.parse_header(environ))
    except webob.exc.HTTPException as error:
        raise Unauthorized("The request you have made requires authentication.") from error
    try:
        basic_auth.authenticate(user_file, user_id, password)
    except webob.exc.HTTPBadRequest as error:
        raise Unavailable("The credentials cannot be checked at present.") from error
    # bcrypt refuses passwords of more than 72 bytes and those with a NUL.
    except (webob.exc.HTTPUnauthorized, ValueError) as error:
        raise Unauthorized("The credentials are not right.") from error
    return str(user_id)


def _parse_grants(grants: tuple[str, ...]) -> Mapping[str, Mapping[str, frozenset[str]]]:
    parsed: dict[str, dict[str, frozenset[str]]] = defaultdict(dict)
    for grant in grants:
        parts = grant.strip().split(":")
        if len(parts) != _GRANT_PARTS or not all(parts) or parts[2] not in _IMPLIED:
            raise InvalidInput(
                f"'{grant}' is no grant; it must be USER:PROJECT:ROLE with a role of {', '.join(_IMPLIED)}",
                "http_basic.grants",
            )
        user_id, project_id, role = parts
        known = parsed[user_id].get(project_id, frozenset())
        parsed[user_id][project_id] = known | _IMPLIED[role]
    return dict(parsed)
