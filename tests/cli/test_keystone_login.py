"""Logging in as OpenStack's own clients do, at a real Keystone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests

from tests.api.identity import PASSWORD, Identity, keystone
from tests.cli.program import Place, started

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def identity(place: Place) -> Iterator[Identity]:
    with keystone(place.folder) as service:
        service.add("mia", "blue", "member")
        yield service


def test_a_user_of_keystone(place: Place, identity: Identity) -> None:
    place.configure(
        auth_strategy="keystone",
        keystone_authtoken__auth_type="password",
        keystone_authtoken__auth_url=identity.url,
        keystone_authtoken__username="admin",
        keystone_authtoken__password=PASSWORD,
        keystone_authtoken__project_name="admin",
        keystone_authtoken__user_domain_id="default",
        keystone_authtoken__project_domain_id="default",
    )
    mia = {
        "OS_AUTH_URL": identity.url,
        "OS_USERNAME": "mia",
        "OS_PASSWORD": PASSWORD,
        "OS_PROJECT_NAME": "blue",
        "OS_USER_DOMAIN_ID": "default",
        "OS_PROJECT_DOMAIN_ID": "default",
    }
    place.instance("i", project=identity.projects["blue"], root=b"r")
    with started(place, "serve"):
        done = place.run("snapshot", "create", "s", "--instance", "i", "--wait", "-f", "json", **mia)
        assert done.code == 0, done
        assert done.document["project_id"] == identity.projects["blue"]
        assert place.run("snapshot", "list", **{**mia, "OS_PASSWORD": "wrong"}).code == 5
        assert place.run("snapshot", "list", **{**mia, "OS_PROJECT_NAME": ""}).code == 2
        unknown = place.run("snapshot", "list", STILLFRAME_ENDPOINT="", **mia)
        assert (unknown.code, "the catalog has no service 'instance-snapshot'" in unknown.err) == (2, True)
        register(identity, place.variables["STILLFRAME_ENDPOINT"])
        found = place.run("snapshot", "list", "-f", "value", "-c", "name", STILLFRAME_ENDPOINT="", **mia)
        assert (found.code, found.out) == (0, "s\n")


def register(identity: Identity, url: str) -> None:
    """Put the service into the catalog."""
    headers = {"X-Auth-Token": identity.token("admin", "admin")}
    service = requests.post(
        f"{identity.url}/services",
        json={"service": {"type": "instance-snapshot", "name": "stillframe"}},
        headers=headers,
        timeout=60,
    ).json()["service"]
    endpoint = {"service_id": service["id"], "interface": "public", "region_id": "one", "url": url}
    requests.post(
        f"{identity.url}/endpoints", json={"endpoint": endpoint}, headers=headers, timeout=60
    ).raise_for_status()
