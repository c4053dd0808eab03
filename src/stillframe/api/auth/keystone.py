"""Keystone's tokens, checked by keystonemiddleware."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from stillframe.api.auth.guard import Guard, new_caller, wrong_project
from stillframe.domain.errors import Forbidden, Unauthorized

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment

    from stillframe.service.caller import Caller
    from stillframe.settings import Settings

LOG = logging.getLogger(__name__)

_SECONDS: Final = 60


def keystone(settings: Settings) -> Guard:
    """As [keystone_authtoken] says."""
    # Imported only where it is used: it brings requests, caches and cryptography along, about 20 MiB of memory.
    from keystoneauth1.exceptions import ClientException  # noqa: PLC0415
    from keystonemiddleware import auth_token  # noqa: PLC0415
    from webob import exc  # type: ignore[import-untyped]  # noqa: PLC0415

    from stillframe.foreign.keystoneauth import harden  # noqa: PLC0415

    class Bounded(auth_token.AuthProtocol):  # type: ignore[misc]  # untyped library
        """Reads what Keystone answers within bounds; by its own default it waits without end."""

        def _create_session(self, **kwargs: Any) -> Any:
            seconds = self._conf.get("http_connect_timeout") or _SECONDS
            session = super()._create_session(**{"timeout": seconds, **kwargs})
            harden(session)
            return session

        def fetch_token(self, token: str, **kwargs: Any) -> Any:
            try:
                return super().fetch_token(token, **kwargs)
            except (ClientException, LookupError, TypeError, AttributeError, ValueError) as error:
                # Of what keeps the service itself from logging in the library knows only a part.
                LOG.warning("Keystone does not answer with what it should: %s", type(error).__name__)
                raise exc.HTTPServiceUnavailable("The Keystone service is temporarily unavailable.") from None

    def wrap(app: WSGIApplication) -> WSGIApplication:
        # It decides by itself: leaving that to us, it would let an identity service that is down look like bad
        # credentials, and clients throw good ones away.
        options = {"oslo_config_config": settings.conf, "delay_auth_decision": False}
        wrapped: WSGIApplication = Bounded(app, options)
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
