"""Headers that say who somebody is. Only keystonemiddleware may write them; from a client they are claims."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

# The names that keystonemiddleware sets and oslo.context reads, as WSGI spells them.
_OF_A_USER: Final = (
    "DOMAIN_ID",
    "DOMAIN_NAME",
    "IDENTITY_STATUS",
    "PROJECT_DOMAIN_ID",
    "PROJECT_DOMAIN_NAME",
    "PROJECT_ID",
    "PROJECT_NAME",
    "ROLES",
    "USER_DOMAIN_ID",
    "USER_DOMAIN_NAME",
    "USER_ID",
    "USER_NAME",
)
_OLD_NAMES: Final = ("X_ROLE", "X_TENANT", "X_TENANT_ID", "X_TENANT_NAME", "X_USER")
CLAIMS: Final = frozenset(
    f"HTTP_{name}"
    for name in (
        *("_".join(parts) for parts in product(("X", "X_SERVICE"), _OF_A_USER)),
        *_OLD_NAMES,
        "OPENSTACK_SYSTEM_SCOPE",
        "X_IS_ADMIN_PROJECT",
        "X_SERVICE_CATALOG",
    )
)


def without_claims(app: WSGIApplication) -> WSGIApplication:
    """The application without what clients say of themselves, however they spell it."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        for name in [name for name in environ if name.upper().replace("-", "_") in CLAIMS]:
            del environ[name]
        return app(environ, start_response)

    return application
