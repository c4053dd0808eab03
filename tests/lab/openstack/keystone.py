"""Keystone: the identity service, and the projects, users and endpoints of the lab."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keystoneauth1.adapter import Adapter
from keystoneauth1.identity.v3 import Password
from keystoneauth1.session import Session

from tests.lab.openstack.database import PASSWORD, Database
from tests.lab.openstack.services import Option, Place, free_port, ini
from tests.lab.openstack.web import Web

__all__ = ["REGION", "USERS", "Keystone", "User", "service_options", "token_options"]

REGION = "lab"


@dataclass(frozen=True)
class User:
    """A user with roles in one project, and some in all projects.

    All live in the domain `default` and have the same password.
    """

    name: str
    project: str
    roles: tuple[str, ...]
    everywhere: tuple[str, ...] = ()


_TENANTS = [
    User(f"{project}-{role}", project, (role,))
    for project in ("alpha", "beta")
    for role in ("reader", "member", "admin")
]
_SERVICES = [User(name, "service", ("admin", "service")) for name in ("nova", "cinder", "glance", "placement")]
# A service takes what its user has paused for its own, so each that runs beside another has a user of its own.
_STILLFRAMES = [
    User(name, "service", ("admin", "service"), ("member",))
    for name in ("stillframe", "stillframe-pausing", "stillframe-drivers")
]
USERS = {
    user.name: user
    for user in [
        User("admin", "admin", ("admin",)),
        *_TENANTS,
        *_SERVICES,
        *_STILLFRAMES,
    ]
}


class Keystone(Web):
    """The identity service; `auth_url` ends in its version."""

    def __init__(self, place: Place) -> None:
        self.folder = place.folder / "keystone"
        self.file = self.folder / "keystone.conf"
        environment = {"OS_KEYSTONE_CONFIG_FILES": str(self.file)}
        super().__init__(place, "keystone", "keystone.wsgi.api", free_port(), environment)
        self.auth_url = f"{self.url}/v3"
        self.projects: dict[str, str] = {}
        self._sessions: dict[str, Session] = {}

    def configure(self, database: Database) -> None:
        self.folder.mkdir()
        keys = {name: self.folder / name for name in ("fernet", "receipts", "credential")}
        for folder in keys.values():
            folder.mkdir(mode=0o700)
            for number in range(2):
                (folder / str(number)).write_bytes(base64.urlsafe_b64encode(os.urandom(32)))
        self.file.write_text(
            ini(
                {
                    "database": {"connection": database.url("keystone")},
                    "token": {"provider": "fernet", "expiration": 86400},
                    "fernet_tokens": {"key_repository": str(keys["fernet"])},
                    "fernet_receipts": {"key_repository": str(keys["receipts"])},
                    "credential": {"key_repository": str(keys["credential"])},
                    "identity": {"password_hash_rounds": 4},
                    # Without it a token costs half a second. One process: what is revoked is forgotten at once.
                    "cache": {"enabled": True, "backend": "dogpile.cache.memory"},
                }
            )
        )

    def migrate(self) -> None:
        manage = [self.place.program("keystone-manage"), "--config-file", str(self.file)]
        self.place.run(*manage, "db_sync")
        self.place.run(*manage, "bootstrap", "--bootstrap-password", PASSWORD)

    def session(self, user: str) -> Session:
        """A session of a user of the lab in that user's project; the same one each time."""
        if user not in self._sessions:
            self._sessions[user] = Session(Password(**self.credentials(user)))  # type: ignore[arg-type]
        return self._sessions[user]

    def forget(self, user: str) -> None:
        """Let a user log in anew: Keystone revokes the tokens of users who lose a role."""
        self._sessions.pop(user, None)

    def credentials(self, user: str) -> dict[str, str]:
        """What keystoneauth's password plugin takes."""
        return {
            "auth_url": self.auth_url,
            "username": user,
            "password": PASSWORD,
            "project_name": USERS[user].project,
            "user_domain_id": "default",
            "project_domain_id": "default",
        }

    def populate(self, endpoints: Mapping[str, tuple[str, str]]) -> None:
        """Make the region, the `endpoints` (name by type, with URL), the projects and the users."""
        # The administrator is there from the bootstrap; the endpoint of Keystone itself is not yet.
        api = Adapter(self.session("admin"), endpoint_override=self.auth_url)
        api.post("/regions", json={"region": {"id": REGION}})
        for kind, (name, url) in {**endpoints, "identity": ("keystone", self.auth_url)}.items():
            service = api.post("/services", json={"service": {"type": kind, "name": name}}).json()["service"]["id"]
            for interface in ("public", "internal", "admin"):
                body = {"service_id": service, "interface": interface, "url": url, "region_id": REGION}
                api.post("/endpoints", json={"endpoint": body})
        self.projects = {project["name"]: project["id"] for project in api.get("/projects").json()["projects"]}
        roles = {role["name"]: role["id"] for role in api.get("/roles").json()["roles"]}
        for user in USERS.values():
            if user.name != "admin":
                self._add(api, user, roles)
        # The administrator's token has no endpoints in it.
        self._sessions.clear()

    def _add(self, api: Adapter, user: User, roles: Mapping[str, str]) -> None:
        if user.project not in self.projects:
            made = api.post("/projects", json={"project": {"name": user.project, "domain_id": "default"}}).json()
            self.projects[user.project] = made["project"]["id"]
        body: dict[str, Any] = {"name": user.name, "domain_id": "default", "password": PASSWORD}
        made = api.post("/users", json={"user": body}).json()
        user_id = made["user"]["id"]
        for role in user.roles:
            api.put(f"/projects/{self.projects[user.project]}/users/{user_id}/roles/{roles[role]}")
        for role in user.everywhere:
            api.put(f"/OS-INHERIT/domains/default/users/{user_id}/roles/{roles[role]}/inherited_to_projects")


def service_options(auth_url: str, user: str) -> dict[str, Option]:
    """How a service of the cloud logs in as its own user."""
    return {
        "auth_type": "password",
        "auth_url": auth_url,
        "username": user,
        "password": PASSWORD,
        "project_name": "service",
        "user_domain_id": "default",
        "project_domain_id": "default",
        "region_name": REGION,
    }


def token_options(auth_url: str, user: str) -> dict[str, Option]:
    """How a service checks the tokens of its callers."""
    return {
        **service_options(auth_url, user),
        "www_authenticate_uri": auth_url,
        "service_token_roles": "service",
        "service_token_roles_required": True,
        # Seconds; by default a revoked token is good for five minutes, and tests do not wait so long.
        "token_cache_time": 10,
    }
