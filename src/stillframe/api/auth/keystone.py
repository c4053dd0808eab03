"""Keystone's tokens, checked by keystonemiddleware."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stillframe.api.auth.guard import Guard, new_caller, wrong_project
from stillframe.domain.errors import Forbidden, Unauthorized

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment

    from stillframe.service.caller import Caller
    from stillframe.settings import Settings


def keystone(settings: Settings) -> Guard:
    """As [keystone_authtoken] says."""
    # Imported only where it is used: it brings requests, caches and cryptography along, about 20 MiB of memory.
    from keystonemiddleware import auth_token  # noqa: PLC0415

    def wrap(app: WSGIApplication) -> WSGIApplication:
        # It decides by itself: leaving that to us, it would let an identity service that is down look like bad
        # credentials, and clients throw good ones away.
        options = {"oslo_config_config": settings.conf, "delay_auth_decision": False}
        wrapped: WSGIApplication = auth_token.AuthProtocol(app, options)
        return wrapped

    return Guard(_identify, wrap)


def _identify(environ: WSGIEnvironment, url_project: str | None) -> Caller:
    if environ.get("HTTP_X_IDENTITY_STATUS") != "Confirmed":
        raise Unauthorized("The request you have made requires authentication.")
    project_id = environ.get("HTTP_X_PROJECT_ID")
    if not project_id:
        raise Forbidden("The token is not scoped to a project.")
    if url_project is not None and url_project != project_id:
        raise wrong_project(url_project, project_id)
    roles = frozenset(role.strip() for role in environ.get("HTTP_X_ROLES", "").split(",") if role.strip())
    caller = new_caller(environ, environ.get("HTTP_X_USER_ID", ""), project_id, roles)
    return replace(caller, token=environ.get("HTTP_X_AUTH_TOKEN"))
