"""A cloud that the environment names is asked, or nobody: never another service that happens to be on this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.domain.printable import printable

if TYPE_CHECKING:
    import argparse

# What OpenStack's clients find a cloud by, or who one is there. A name and a password, a token and a project id are
# what a service without Keystone is told, too.
_OF_A_CLOUD: Final = (
    *("OS_CLOUD", "OS_CLIENT_CONFIG_FILE", "OS_AUTH_URL", "OS_REGION_NAME", "OS_INTERFACE", "OS_ENDPOINT_TYPE"),
    *("OS_PROJECT_NAME", "OS_PROJECT_DOMAIN_ID", "OS_PROJECT_DOMAIN_NAME", "OS_TENANT_ID", "OS_TENANT_NAME"),
    *("OS_USER_ID", "OS_USER_DOMAIN_ID", "OS_USER_DOMAIN_NAME", "OS_DOMAIN_ID", "OS_DOMAIN_NAME", "OS_DEFAULT_DOMAIN"),
    *("OS_APPLICATION_CREDENTIAL_ID", "OS_APPLICATION_CREDENTIAL_NAME", "OS_APPLICATION_CREDENTIAL_SECRET"),
    *("OS_TRUST_ID", "OS_SYSTEM_SCOPE", "OS_IDENTITY_API_VERSION", "OS_IDENTITY_PROVIDER", "OS_PROTOCOL"),
)
_MENDED_BY: Final = (
    "For the cloud say where its Keystone is and who you are (OS_AUTH_URL and the rest of an openrc file); for a "
    "service without Keystone say where it is (--os-endpoint) and how it is entered (--os-auth-type)"
)


def require_meant(options: argparse.Namespace, *, standalone: bool) -> None:
    """Raises `CommandFailed` if the environment names a cloud and the options lead somewhere else.

    `standalone`: they lead to a service without Keystone. What they say in full is meant.
    """
    where = options.os_endpoint if standalone else options.os_auth_url
    cloud = os.environ.get("OS_CLOUD")
    if cloud and not (where and options.os_auth_type):
        raise CommandFailed(
            ExitCode.USAGE,
            f"OS_CLOUD names the cloud '{printable(cloud)}' of a clouds.yaml, which is not read here. {_MENDED_BY}, or "
            "unset OS_CLOUD",
        )
    named = [name for name in _OF_A_CLOUD if os.environ.get(name)]
    if standalone and named and not where:
        raise CommandFailed(
            ExitCode.USAGE,
            f"the environment names a cloud ({', '.join(named)}), and this would ask the service of this machine. "
            f"{_MENDED_BY}, or unset them",
        )
