"""The options that say where the service is and who is asking; they follow OpenStack's client."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import argparse

ENDPOINT: Final = "http://127.0.0.1:8790"
PROJECT: Final = "default"
SERVICE_TYPE: Final = "instance-snapshot"

# Flag without --os-, environment variables, explanation.
_OPTIONS: Final = (
    (
        "endpoint",
        ("STILLFRAME_ENDPOINT", "OS_ENDPOINT"),
        (
            f"Where the service is. Without it where the settings of this machine say, else {ENDPOINT}; with Keystone "
            f"the service '{SERVICE_TYPE}' of the catalog."
        ),
    ),
    (
        "auth-type",
        ("OS_AUTH_TYPE",),
        (
            "none, http_basic, admin_token (the service's own token), password, token, v3applicationcredential or "
            "another plugin of keystoneauth. Without it password where there is an --os-auth-url, else http_basic "
            "where there is an --os-password, else admin_token where there is an --os-token, else what the service of "
            "this machine asks for: its token is found by itself."
        ),
    ),
    (
        "cloud",
        ("OS_CLOUD",),
        "Cloud of a clouds.yaml, as openstacksdk finds it; other options take the place of what is written there.",
    ),
    ("auth-url", ("OS_AUTH_URL",), "Where Keystone is."),
    ("username", ("OS_USERNAME",), "User name; with auth type none whatever you say it is."),
    ("user-id", ("OS_USER_ID",), "User id."),
    ("password", ("OS_PASSWORD",), "Password. Better use the variable: other users can see command lines."),
    ("user-domain-id", ("OS_USER_DOMAIN_ID",), "Domain of the user, by id."),
    ("user-domain-name", ("OS_USER_DOMAIN_NAME",), "Domain of the user, by name."),
    ("project-id", ("OS_PROJECT_ID",), f"Project to act in; without it and Keystone '{PROJECT}'."),
    ("project-name", ("OS_PROJECT_NAME",), "Project to act in, by name (only with Keystone)."),
    ("project-domain-id", ("OS_PROJECT_DOMAIN_ID",), "Domain of the project, by id."),
    ("project-domain-name", ("OS_PROJECT_DOMAIN_NAME",), "Domain of the project, by name."),
    ("token", ("OS_TOKEN",), "Token of Keystone, or with admin_token of the service."),
    ("application-credential-id", ("OS_APPLICATION_CREDENTIAL_ID",), "Application credential, by id."),
    ("application-credential-name", ("OS_APPLICATION_CREDENTIAL_NAME",), "Application credential, by name."),
    ("application-credential-secret", ("OS_APPLICATION_CREDENTIAL_SECRET",), "Its secret."),
    ("region-name", ("OS_REGION_NAME",), "Region of the catalog."),
    ("interface", ("OS_INTERFACE",), "Interface of the catalog: public, internal or admin."),
    ("cacert", ("OS_CACERT",), "File with the certificates of the authorities to trust."),
)


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """Add the `--os-...` options; what is not given is empty."""
    group = parser.add_argument_group("where the service is, and who you are")
    for flag, variables, text in _OPTIONS:
        value = next((os.environ[name] for name in variables if os.environ.get(name)), "")
        metavar = flag.rsplit("-", 1)[-1].upper()
        group.add_argument(f"--os-{flag}", metavar=metavar, default=value, help=f"{text} ({', '.join(variables)})")
    group.add_argument("--insecure", action="store_true", help="Do not verify the server's certificate.")
    group.add_argument(
        "--os-timeout",
        metavar="SECONDS",
        type=float,
        default=120.0,
        help="How long one request may take (default: 120); connecting may take 10 at most.",
    )
