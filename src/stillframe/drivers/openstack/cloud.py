"""The way to OpenStack's services: on whose behalf a request is made, and its errors in the words of our tree."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlencode

from keystoneauth1 import exceptions, service_token, token_endpoint
from keystoneauth1.adapter import Adapter
from keystoneauth1.loading import conf as auth_loading
from keystoneauth1.loading import session as session_loading
from keystoneauth1.plugin import BaseAuthPlugin
from keystoneauth1.session import Session
from oslo_config import cfg

from stillframe.domain.errors import BackendError, InvalidInput, NotFound, Unavailable
from stillframe.drivers.openstack.documents import Shape
from stillframe.drivers.openstack.refusals import translate
from stillframe.foreign import replies
from stillframe.foreign.keystoneauth import harden

LOG = logging.getLogger(__name__)

GROUP: Final = "openstack"

# Nova 2.90 (Xena): the reason of a lock, and attachments that name their volumes. Cinder 3.68 (Yoga): reverting,
# groups, reimaging. Glance counts no microversions.
MICROVERSIONS: Final[Mapping[str, str | None]] = {"compute": "2.90", "block-storage": "3.68", "image": None}
_SCOPE: Final = ("project_id", "project_name", "project_domain_id", "project_domain_name")
_PROJECTS: Final = 256
_PAGE: Final = 1000
_MOST_PAGES: Final = 1000
_TIMEOUT_SECONDS: Final = 60
_ACCEPTED: Final = 202
# By proxies before it.
_FROM_OTHERS: Final = (502, 503, 504)
_BROKEN: Final = 500
# Of the errors by which Nova and Cinder tell that the service behind them has not answered, or cannot be asked.
_BROKEN_QUEUE: Final = (b"oslo_messaging", b"Timeout while requesting")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Which of the catalogue's endpoints are used."""

    interface: str
    region: str | None


@dataclass(frozen=True, slots=True)
class Credentials:
    """What another process needs to speak to a service for us; it has a token in it and is never logged or shown.

    `verify` and `cert` are as requests takes them.
    """

    endpoint: str
    headers: Mapping[str, str]
    verify: bool | str | None
    cert: str | tuple[str, str] | None


class Api:
    """One service of the cloud, asked on behalf of one identity."""

    def __init__(self, adapter: Adapter, name: str, *, for_user: bool) -> None:
        self._adapter = adapter
        self._name = name
        self._for_user = for_user

    def get(self, path: str, shape: Shape, **query: str) -> Any:
        """What is at a path, in its shape; raises `Unavailable` for an answer of another, which says nothing."""
        return self._read(shape, self._ask("GET", f"{path}?{urlencode(query)}" if query else path))

    def pages(self, path: str, shape: Shape, **query: str) -> Iterator[dict[str, Any]]:
        """Every item of a collection, page after page."""
        query = {"limit": str(_PAGE), **query}
        for _ in range(_MOST_PAGES):
            document = self._ask("GET", f"{path}?{urlencode(query)}")
            items = self._read(shape, document)
            yield from items
            if not document.get(f"{shape.key}_links"):
                return
            if not items or items[-1]["id"] == query.get("marker"):
                raise Unavailable(f"{self._name} tells of a next page again and again.")
            query["marker"] = items[-1]["id"]
        raise Unavailable(f"{self._name} tells of more than {_MOST_PAGES} pages of {shape.key}.")

    def act(self, path: str, body: Mapping[str, Any], request_id: str | None = None) -> None:
        """Ask for something whose outcome is looked for elsewhere."""
        self._ask("POST", path, json=body, headers=_tracing(request_id))

    def make(self, path: str, shape: Shape, body: Mapping[str, Any], request_id: str | None = None) -> Any:
        """What was made, in its shape; raises `Unavailable` where nobody knows whether it was."""
        return self._read(shape, self._ask("POST", path, json=body, headers=_tracing(request_id)))

    def put(self, path: str, content: bytes, kind: str) -> None:
        """Send bytes of a media type."""
        self._ask("PUT", path, data=content, headers={"Content-Type": kind})

    def delete(self, path: str, request_id: str | None = None) -> None:
        """Remove what is at a path; raises `NotFound`."""
        self._ask("DELETE", path, headers=_tracing(request_id))

    def probe(self, path: str, seconds: float) -> int | None:
        """The status by which whoever stands behind the service answers a question, whatever that is.

        None where nothing has come after so many seconds. Raises `Unavailable` if the service itself does not answer.
        """
        with _translated(self._name, for_user=self._for_user):
            try:
                reply = self._adapter.request(path, "GET", raise_exc=False, timeout=seconds)
            except exceptions.ConnectTimeout:
                return None
        if any(mark in reply.content for mark in _BROKEN_QUEUE) and reply.status_code >= _BROKEN:
            return None
        if reply.status_code in _FROM_OTHERS:
            raise Unavailable(f"{self._name} answered with HTTP {reply.status_code}.")
        return int(reply.status_code)

    def endpoint(self) -> str:
        """Where the service is."""
        with _translated(self._name, for_user=self._for_user):
            found = self._adapter.get_endpoint()
        if not found:
            raise BackendError(
                f"The catalogue of the cloud has no endpoint for {self._name}; correct region_name and interface in "
                "[openstack]."
            )
        return str(found)

    def _ask(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        with _translated(self._name, for_user=self._for_user):
            reply = self._adapter.request(path, method, **kwargs)
        content = reply.content
        if not reply.ok or reply.is_redirect:
            raise Unavailable(f"{self._name} answered with HTTP {reply.status_code}.")
        if not content or (reply.status_code == _ACCEPTED and not _is_json(reply)):
            # Some answers of 202 have a body that is no document.
            return {}
        try:
            found = replies.document(content)
        except replies.Malformed as problem:
            raise Unavailable(f"{self._name}: {problem}") from None
        return found if isinstance(found, dict) else {}

    def _read(self, shape: Shape, document: Any) -> Any:
        try:
            return shape.read(document)
        except replies.Malformed as problem:
            raise Unavailable(f"{self._name}: {problem}") from None


class Cloud:
    """Every identity that a request can be made with.

    `service`: the service user in the service's own project, an administrator. `project`: the service user as a member
    of a tenant's project. `user`: whoever's token it is.
    """

    def __init__(
        self, session: Session, load_auth: Callable[[str | None], BaseAuthPlugin], endpoints: Endpoints
    ) -> None:
        self._session = session
        # Each keeps its token until shortly before it expires.
        self._member_of = lru_cache(_PROJECTS)(load_auth)
        self._own = load_auth(None)
        self._endpoints = endpoints
        # A token, and when it was asked for.
        self._fetched: tuple[Any, float] = None, 0.0

    def service(self, kind: str) -> Api:
        """As the service's user, in the service's project."""
        return self._api(kind, self._own, for_user=False)

    def project(self, kind: str, project_id: str) -> Api:
        """As the service's user, in a tenant's project."""
        return self._api(kind, self._member_of(project_id), for_user=False)

    def user(self, kind: str, token: str) -> Api:
        """As whoever has the token; our own goes with it, so that it holds while the request lasts."""
        # Our own project, which may stand in the endpoint, is not theirs; since 3.67 Cinder needs none there.
        endpoint = self.service(kind).endpoint().rstrip("/").removesuffix(f"/{self.project_id()}")
        theirs = token_endpoint.Token(endpoint, token)
        both = service_token.ServiceTokenAuthWrapper(user_auth=theirs, service_auth=self._own)
        return self._api(kind, both, for_user=True)

    def project_id(self) -> str:
        """The service's own project."""
        with _translated("identity", for_user=False):
            found = self._session.get_project_id(self._own)
        if found is None:
            raise BackendError("The service's user has no project; set project_name in [openstack].")
        return str(found)

    def user_id(self) -> str:
        """The service's own user."""
        with _translated("identity", for_user=False):
            return str(self._session.get_user_id(self._own))

    def roles(self) -> frozenset[str]:
        """The names of the roles that the service's user has in its own project; it logs in for them."""
        access = self._access(0)
        with _translated("identity", for_user=False):
            return frozenset(map(str, access.role_names))

    def regions(self, kind: str) -> frozenset[str]:
        """The regions that a service has endpoints of their own in, among those that may be meant."""
        access = self._access(0)
        with _translated("identity", for_user=False):
            found = access.service_catalog.get_endpoints(
                service_type=kind, interface=self._endpoints.interface, region_name=self._endpoints.region
            )
            regions = {str(one["url"]): str(one["region"]) for some in found.values() for one in some if one["region"]}
        return frozenset(regions.values())

    def credentials(self, kind: str, seconds: float) -> Credentials:
        """A way to a service that is good for so long, where Keystone gives tokens for so long."""
        token = str(self._access(seconds).auth_token)
        endpoint = self.service(kind).endpoint().rstrip("/")
        headers = {"X-Auth-Token": token, "OpenStack-API-Version": f"{kind} {MICROVERSIONS[kind]}"}
        return Credentials(endpoint, headers, self._session.verify, self._session.cert)

    def _access(self, seconds: float) -> Any:
        # Plugins that can be scoped to a project, as ours must be, know what their token grants.
        own: Any = self._own
        with _translated("identity", for_user=False):
            access = own.get_access(self._session)
            if seconds and self._left(access) < seconds:
                own.invalidate()
                asked_at = _passed()
                access = own.get_access(self._session)
                self._fetched = access, asked_at
        return access

    def _left(self, access: Any) -> float:
        """Seconds that a token is surely still good for: Keystone's clock, which it is dated by, need not be ours."""
        known, asked_at = self._fetched
        if known is not access:
            return 0.0
        return float((access.expires - access.issued).total_seconds()) - (_passed() - asked_at)

    def _api(self, kind: str, auth: BaseAuthPlugin, *, for_user: bool) -> Api:
        adapter = Adapter(
            self._session,
            auth=auth,
            service_type=kind,
            interface=self._endpoints.interface,
            region_name=self._endpoints.region,
            default_microversion=MICROVERSIONS.get(kind),
            # Its endpoint may be that of all its versions.
            version="3" if kind == "identity" else None,
            client_name="stillframe",
            # Whether something is worth another try is decided in one place, around the driver.
            connect_retries=0,
        )
        return Api(adapter, kind, for_user=for_user)


def connect(conf: cfg.ConfigOpts, endpoints: Endpoints) -> Cloud:
    """The cloud that the group [openstack] of the settings names; raises `InvalidInput`."""
    auth_loading.register_conf_options(conf, GROUP)
    session_loading.Session().register_conf_options(conf, GROUP)
    # By its own default a service that hangs would be waited for without end.
    conf.set_default("timeout", _TIMEOUT_SECONDS, GROUP)
    session: Session = session_loading.Session().load_from_conf_options(conf, GROUP)
    harden(session)

    def load_auth(project_id: str | None) -> BaseAuthPlugin:
        scope = dict.fromkeys(_SCOPE) | {"project_id": project_id} if project_id else {}
        found = auth_loading.load_from_conf_options(conf, GROUP, **scope)
        if found is None:
            raise InvalidInput("how to log in to the cloud is not said; set at least auth_type", f"{GROUP}.auth_type")
        return found

    try:
        return Cloud(session, load_auth, endpoints)
    except (exceptions.AuthPluginException, cfg.Error) as error:
        raise InvalidInput(f"the cloud cannot be logged in to with these settings: {error}", GROUP) from None


def path_part(identity: str, what: str) -> str:
    """An id from a request, before it becomes part of a path; raises `NotFound` about `what` if it can be none."""
    if not re.fullmatch(r"[\w-]+", identity):
        raise NotFound(f"{what} could not be found.")
    return identity


def _passed() -> float:
    # Goes on while the machine is suspended, and is never set.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _tracing(request_id: str | None) -> dict[str, str]:
    # https://specs.openstack.org/openstack/oslo-specs/specs/pike/global-req-id.html
    return {"X-OpenStack-Request-ID": request_id} if request_id else {}


def _is_json(reply: Any) -> bool:
    return str(reply.headers.get("Content-Type", "")).startswith("application/json")


@contextmanager
def _translated(service: str, *, for_user: bool) -> Iterator[None]:
    try:
        yield
    except exceptions.ClientException as error:
        raise translate(error, service, for_user=for_user) from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        # The library looks into answers, such as tokens and catalogues, without asking whether they are any.
        LOG.warning("%s answered with something that makes no sense: %s", service, type(error).__name__)
        raise Unavailable(f"{service} answered with something that makes no sense.") from None
