"""From the options to a session of keystoneauth, and to the service."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Any

from keystoneauth1 import exceptions, http_basic, loading, session, token_endpoint

from stillframe.cli.client import Client, border
from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.cli.options import ENDPOINT, PROJECT, SERVICE_TYPE

if TYPE_CHECKING:
    import argparse

    from keystoneauth1.plugin import BaseAuthPlugin


def open_client(options: argparse.Namespace) -> Client:
    """The service that the options lead to; with Keystone this may ask it for a token."""
    kind = options.os_auth_type or _guess(options)
    if kind == "none":
        endpoint, project = _standalone(options)
        return Client(_session(options, _nobody(options, endpoint, project)), endpoint, project)
    if kind == "http_basic":
        endpoint, project = _standalone(options)
        plugin = http_basic.HTTPBasicAuth(endpoint, options.os_username, options.os_password)
        return Client(_session(options, plugin), endpoint, project)
    opened = _session(options, _load(kind, options))
    with border("Keystone"):
        project = opened.get_project_id() or ""
        endpoint = options.os_endpoint or _from_catalog(opened, options)
    if not project:
        raise CommandFailed(ExitCode.USAGE, "the token is not scoped to a project; say --os-project-id or -name")
    return Client(opened, endpoint.rstrip("/"), project)


def _guess(options: argparse.Namespace) -> str:
    if options.os_auth_url:
        return "password"
    return "http_basic" if options.os_password else "none"


def _standalone(options: argparse.Namespace) -> tuple[str, str]:
    return (options.os_endpoint or ENDPOINT).rstrip("/"), options.os_project_id or PROJECT


def _nobody(options: argparse.Namespace, endpoint: str, project: str) -> BaseAuthPlugin:
    """Where everybody is who they say, it helps to say who: it is shown with the snapshots."""
    try:
        user = options.os_username or getpass.getuser()
    except (KeyError, OSError):
        user = "noauth"
    return token_endpoint.Token(endpoint, f"{user}:{project}".encode().decode("latin-1"))


def _session(options: argparse.Namespace, plugin: BaseAuthPlugin) -> session.Session:
    verify = False if options.insecure else options.os_cacert or True
    return session.Session(auth=plugin, verify=verify, timeout=options.os_timeout, app_name="stillframe")


def _load(kind: str, options: argparse.Namespace) -> BaseAuthPlugin:
    try:
        loader: Any = loading.get_plugin_loader(kind)
        names = {option.dest for option in loader.get_options()}
        given = {name: value for name in names if (value := getattr(options, f"os_{name}", ""))}
        plugin: BaseAuthPlugin = loader.load_from_options(**given)
    except exceptions.ClientException as error:
        raise CommandFailed(ExitCode.USAGE, str(error)) from None
    return plugin


def _from_catalog(opened: session.Session, options: argparse.Namespace) -> str:
    try:
        found = opened.get_endpoint(
            service_type=SERVICE_TYPE,
            interface=options.os_interface or "public",
            region_name=options.os_region_name or None,
        )
    except exceptions.CatalogException:
        found = None
    if not found:
        raise CommandFailed(
            ExitCode.USAGE, f"the catalog has no service '{SERVICE_TYPE}'; say --os-endpoint or STILLFRAME_ENDPOINT"
        )
    return found
