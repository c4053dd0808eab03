"""A cloud that is named is asked, or nobody: never another service that happens to be on this machine.

Clouds are found as openstacksdk finds them: clouds.yaml with secure.yaml beside it, profiles of vendors, and the
variables that say where else those files are.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from keystoneauth1 import exceptions

from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.domain.printable import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from openstack.config.cloud_region import CloudRegion

# What OpenStack's clients find a cloud by, or who one is there. A name and a password, a token and a project id are
# what a service without Keystone is told, too.
_OF_A_CLOUD: Final = (
    *("OS_CLIENT_CONFIG_FILE", "OS_AUTH_URL", "OS_REGION_NAME", "OS_INTERFACE", "OS_ENDPOINT_TYPE"),
    *("OS_PROJECT_NAME", "OS_PROJECT_DOMAIN_ID", "OS_PROJECT_DOMAIN_NAME", "OS_TENANT_ID", "OS_TENANT_NAME"),
    *("OS_USER_ID", "OS_USER_DOMAIN_ID", "OS_USER_DOMAIN_NAME", "OS_DOMAIN_ID", "OS_DOMAIN_NAME", "OS_DEFAULT_DOMAIN"),
    *("OS_APPLICATION_CREDENTIAL_ID", "OS_APPLICATION_CREDENTIAL_NAME", "OS_APPLICATION_CREDENTIAL_SECRET"),
    *("OS_TRUST_ID", "OS_SYSTEM_SCOPE", "OS_IDENTITY_API_VERSION", "OS_IDENTITY_PROVIDER", "OS_PROTOCOL"),
)
_MENDED_BY: Final = (
    "For the cloud say which one of clouds.yaml it is (--os-cloud), or where its Keystone is and who you are "
    "(OS_AUTH_URL and the rest of an openrc file); for a service without Keystone say where it is (--os-endpoint) and "
    "how it is entered (--os-auth-type)"
)


def find_cloud(options: argparse.Namespace) -> CloudRegion:
    """The cloud that `options.os_cloud` names; other options take the place of what is written there of it.

    Raises `CommandFailed` if there is no such cloud, if it is not described in full, or if the options name another
    Keystone, which would be sent what is meant for the cloud's own.
    """
    if options.os_auth_url:
        raise CommandFailed(
            ExitCode.USAGE,
            f"OS_CLOUD or --os-cloud names the cloud '{printable(options.os_cloud)}', and OS_AUTH_URL or --os-auth-url "
            "a Keystone; one of them is too many: unset OS_CLOUD, or OS_AUTH_URL",
        )
    given = {name[3:]: value for name, value in vars(options).items() if name.startswith("os_") and value}
    for ours in ("cloud", "endpoint", "timeout"):
        given.pop(ours, None)
    if options.insecure:
        given["insecure"] = True
    return _read(options.os_cloud, given)


def _read(name: str, given: dict[str, Any]) -> CloudRegion:
    # Only those who name a cloud wait until these are loaded.
    import yaml  # type: ignore[import-untyped]  # noqa: PLC0415
    from openstack.config import OpenStackConfig  # noqa: PLC0415
    from openstack.exceptions import ConfigException  # noqa: PLC0415

    where = "the files of clouds"
    try:
        with _none_skipped():
            known = OpenStackConfig(app_name="stillframe")
            where = known.config_filename or "any clouds.yaml"
            if name not in known.get_cloud_names():
                raise CommandFailed(
                    ExitCode.USAGE,
                    f"there is no cloud '{printable(name)}' in {printable(where)} (--os-cloud, OS_CLOUD); it would be "
                    "looked for in clouds.yaml here, in ~/.config/openstack and in /etc/openstack, and where "
                    f"OS_CLIENT_CONFIG_FILE says. {_MENDED_BY}, or unset OS_CLOUD",
                )
            found = known.get_one(cloud=name, **given)
    except yaml.YAMLError as error:
        # As earlier releases of openstacksdk raise it; its own text shows what may be a password.
        raise CommandFailed(ExitCode.USAGE, _no_yaml(where, error)) from None
    except (ConfigException, exceptions.ClientException) as error:
        # What it quotes of the file may be a password.
        told = str(error).partition("{")[0].rstrip(": ")
        raise CommandFailed(ExitCode.USAGE, f"the cloud '{printable(name)}': {printable(told)}") from None
    except (AttributeError, TypeError, ValueError, KeyError, OSError):
        # openstacksdk takes for granted that mappings are where they should be.
        raise CommandFailed(
            ExitCode.USAGE, f"the cloud '{printable(name)}' is not described as it should be in {printable(where)}"
        ) from None
    return found


class _Skipped(logging.Filter):
    """Keeps from the log what openstacksdk says of a file that it cannot read, with words of the file, and goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging`."""
        match record.args:
            case (str() as path, Exception() as error):
                self.said.append(_no_yaml(path, error))
                return False
        return True


@contextmanager
def _none_skipped() -> Iterator[None]:
    """Raises `CommandFailed` if a file was skipped: what another one says of the cloud was not meant."""
    log, skipped = logging.getLogger("openstack.config"), _Skipped()
    log.addFilter(skipped)
    try:
        yield
    finally:
        log.removeFilter(skipped)
        if skipped.said:
            raise CommandFailed(ExitCode.USAGE, skipped.said[0]) from None


def _no_yaml(path: str, error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"{mark.name}, line {mark.line + 1}" if mark else path
    return f"{printable(place)}: this is no YAML"


def require_meant(options: argparse.Namespace, *, standalone: bool) -> None:
    """Raises `CommandFailed` if the environment names a cloud and the options lead to the service of this machine.

    `standalone`: they lead to a service without Keystone. What they say in full is meant.
    """
    named = [name for name in _OF_A_CLOUD if os.environ.get(name)]
    if standalone and named and not options.os_endpoint:
        raise CommandFailed(
            ExitCode.USAGE,
            f"the environment names a cloud ({', '.join(named)}), and this would ask the service of this machine. "
            f"{_MENDED_BY}, or unset them",
        )
