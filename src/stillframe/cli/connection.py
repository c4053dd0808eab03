"""From the options to a session of keystoneauth, and to the service."""

from __future__ import annotations

import getpass
import ipaddress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from keystoneauth1 import exceptions, http_basic, loading, session, token_endpoint
from keystoneauth1.identity import BaseIdentityPlugin

from stillframe.cli.client import Adapter, Client, address, translating
from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.cli.local_service import Local, default_endpoint, login
from stillframe.cli.named_cloud import find_cloud, require_meant
from stillframe.cli.options import PROJECT, SERVICE_TYPE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from keystoneauth1.plugin import BaseAuthPlugin
    from openstack.config.cloud_region import CloudRegion

    from stillframe.settings import Settings

# What the service of this machine asks for.
_LOCAL: Final = "own_token"
_STANDALONE: Final = frozenset({_LOCAL, "admin_token", "http_basic", "none"})


def open_client(options: argparse.Namespace, settings: Callable[[], Settings]) -> Client:
    """The service that the options lead to, else that of this machine; with Keystone this may ask it for a token."""
    if options.os_endpoint:
        options.os_endpoint = address("--os-endpoint", options.os_endpoint)
    # Where the service is and how it is entered leaves nothing that a cloud would have to say.
    if options.os_cloud and not (options.os_endpoint and options.os_auth_type in _STANDALONE):
        return _of_cloud(options, find_cloud(options))
    kind = options.os_auth_type or _guess(options)
    require_meant(options, standalone=kind in _STANDALONE)
    if options.os_auth_url and kind not in _STANDALONE:
        options.os_auth_url = address("--os-auth-url", options.os_auth_url)
    if kind in _STANDALONE:
        endpoint = (options.os_endpoint or default_endpoint(settings)).rstrip("/")
        project = options.os_project_id or PROJECT
        found = login(endpoint, settings) if kind == _LOCAL else Local()
        plugin = _plugin(kind, found, options, endpoint, project)
        return Client(_session(options, plugin, direct=_is_loopback(endpoint)), endpoint, project, found.hint)
    opened = _session(options, _load(kind, options))
    with translating("Keystone"):
        project = opened.get_project_id() or ""
        endpoint = options.os_endpoint or _from_catalog(opened, options.os_interface, options.os_region_name)
    return _scoped(opened, endpoint, project)


def _of_cloud(options: argparse.Namespace, cloud: CloudRegion) -> Client:
    plugin = cloud.get_auth()
    opened = _session(options, plugin)
    opened.verify, opened.cert = cloud.get_requests_verify_args()
    with translating("Keystone"):
        interface, region = cloud.get_interface(SERVICE_TYPE), cloud.get_region_name(SERVICE_TYPE)
        endpoint = options.os_endpoint or cloud.get_endpoint(SERVICE_TYPE) or _from_catalog(opened, interface, region)
        project = opened.get_project_id() or ""
    if not isinstance(plugin, BaseIdentityPlugin):
        opened.session.trust_env = not _is_loopback(endpoint)
        project = project or options.os_project_id or PROJECT
    return _scoped(opened, endpoint, project)


def _scoped(opened: session.Session, endpoint: str, project: str) -> Client:
    if not project:
        raise CommandFailed(ExitCode.USAGE, "the token is not scoped to a project; say --os-project-id or -name")
    return Client(opened, endpoint.rstrip("/"), project)


def _guess(options: argparse.Namespace) -> str:
    if options.os_auth_url:
        return "password"
    if options.os_password:
        return "http_basic"
    return "admin_token" if options.os_token else _LOCAL


def _plugin(kind: str, found: Local, options: argparse.Namespace, endpoint: str, project: str) -> BaseAuthPlugin | None:
    if kind == "http_basic":
        return http_basic.HTTPBasicAuth(endpoint, options.os_username, options.os_password)
    if kind == "admin_token":
        return token_endpoint.Token(endpoint, options.os_token)
    if kind == "none" or found.nobody_is_asked:
        return _nobody(options, endpoint, project)
    return token_endpoint.Token(endpoint, found.token) if found.token else None


def _nobody(options: argparse.Namespace, endpoint: str, project: str) -> BaseAuthPlugin:
    """Where everybody is who they say, it helps to say who: it is shown with the snapshots."""
    try:
        user = options.os_username or getpass.getuser()
    except (KeyError, OSError):
        user = "noauth"
    return token_endpoint.Token(endpoint, f"{user}:{project}".encode().decode("latin-1"))


def _session(options: argparse.Namespace, plugin: BaseAuthPlugin | None, *, direct: bool = False) -> session.Session:
    """With `direct`, past the proxies of the environment, for what is meant for this machine stays on it."""
    verify = False if options.insecure else options.os_cacert or True
    made = session.Session(auth=plugin, verify=verify, timeout=options.os_timeout, app_name="stillframe")
    made.session.trust_env = not direct
    for scheme in ("http://", "https://"):
        made.session.mount(scheme, Adapter())
    return made


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _load(kind: str, options: argparse.Namespace) -> BaseAuthPlugin:
    try:
        loader: Any = loading.get_plugin_loader(kind)
        names = {option.dest for option in loader.get_options()}
        given = {name: value for name in names if (value := getattr(options, f"os_{name}", ""))}
        plugin: BaseAuthPlugin = loader.load_from_options(**given)
    except exceptions.ClientException as error:
        raise CommandFailed(ExitCode.USAGE, str(error)) from None
    return plugin


def _from_catalog(opened: session.Session, interface: list[str] | str | None, region: str | None) -> str:
    try:
        found = opened.get_endpoint(
            service_type=SERVICE_TYPE,
            interface=interface or "public",
            region_name=region or None,
        )
    except exceptions.CatalogException:
        found = None
    if not found:
        raise CommandFailed(
            ExitCode.USAGE, f"the catalog has no service '{SERVICE_TYPE}'; say --os-endpoint or STILLFRAME_ENDPOINT"
        )
    return found
