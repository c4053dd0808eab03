"""What every way to authenticate has in common: the guard that it is, and the caller that it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stillframe.domain.errors import InvalidInput
from stillframe.service.caller import Caller

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment

#: A role of a persona brings the ones below it along; Keystone expands its roles by itself.
IMPLIED_ROLES: Final = {
    "admin": frozenset({"admin", "member", "reader"}),
    "member": frozenset({"member", "reader"}),
    "reader": frozenset({"reader"}),
}

Identify = Callable[["WSGIEnvironment", str | None], Caller]


@dataclass(frozen=True, slots=True)
class Guard:
    """One way to authenticate.

    `identify` takes the request and its path's project id, and raises `Unauthorized`, `Forbidden`, or `InvalidInput`
    for another project than the caller's. `wrap` goes around the application. `challenge` is WWW-Authenticate's value
    where `wrap` does not see to it. `costly` says of the header Authorization whether checking it takes the processor
    long enough that others should not wait for it. `usable`: whether what it goes by can be used now, where that is a
    file of the operator's.
    """

    identify: Identify
    wrap: Callable[[WSGIApplication], WSGIApplication] = lambda app: app
    challenge: str | None = None
    costly: Callable[[str | None], bool] = lambda _authorization: False
    usable: Callable[[], bool] | None = None


def new_caller(environ: WSGIEnvironment, user_id: str, project_id: str, roles: frozenset[str]) -> Caller:
    """The caller of a request, with the ids that the request is logged under."""
    return Caller(
        user_id=user_id,
        project_id=project_id,
        roles=roles,
        request_id=environ["openstack.request_id"],
        global_request_id=environ.get("openstack.global_request_id"),
    )


def wrong_project(url_project: str, project_id: str) -> InvalidInput:
    """The refusal of a path that names another project than the caller's."""
    return InvalidInput(
        f"Malformed request URL: URL's project_id '{url_project}' doesn't match Context's project_id '{project_id}'"
    )
