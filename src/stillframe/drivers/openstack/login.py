"""Whether the service's user can log in to the cloud, and has the roles it needs and no others that hurt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from stillframe.domain.errors import StillframeError, Unavailable
from stillframe.drivers.openstack import documents
from stillframe.drivers.openstack.cloud import Cloud
from stillframe.drivers.openstack.reverting import Reverter
from stillframe.drivers.problems import Problem, Problems

_NEEDED: Final = {
    "admin": "it sees and locks the servers of all projects, and resets the status of volumes",
    "service": "Nova and Cinder take its token beside a user's, and callers' tokens are checked with it",
}
_SHOWN: Final = 5


class CloudProblems(Problems):
    """See `Problems`: the login, and the back ends where it leaves a way to look at them."""

    def __init__(self, cloud: Cloud, kinds: Sequence[str], reverter: Reverter) -> None:
        self._cloud = cloud
        self._kinds = kinds
        self._reverter = reverter

    def problems(self) -> Iterator[Problem]:
        """See `Problems`."""
        passable = True
        for problem in problems(self._cloud, self._kinds):
            passable = passable and not problem.grave
            yield problem
        if passable:
            yield from self._reverter.problems()


def problems(cloud: Cloud, kinds: Sequence[str]) -> Iterator[Problem]:
    """All that is wrong; `kinds` are the services of the catalogue that are used."""
    try:
        roles = cloud.roles()
    except Unavailable as error:
        yield Problem(f"Keystone cannot be reached: {error.message}", "see that it answers at auth_url", grave=True)
        return
    except StillframeError as error:
        yield Problem(
            f"the service's user cannot log in: {error.message}",
            "correct username, password, project_name, their domains and auth_url in [openstack]",
            grave=True,
        )
        return
    for role in sorted(_NEEDED.keys() - roles):
        yield Problem(
            f"the service's user has no role '{role}' in its project: {_NEEDED[role]}",
            f"openstack role add --user <it> --project <its project> {role}",
            grave=True,
        )
    for kind in kinds:
        try:
            cloud.service(kind).endpoint()
            yield from _one_region(kind, cloud.regions(kind))
        except StillframeError as error:
            yield Problem(error.message, "correct region_name and interface in [openstack]", grave=True)
    if "admin" in roles:
        yield from _rivals(cloud)


def _one_region(kind: str, regions: frozenset[str]) -> Iterator[Problem]:
    """Keystone's library takes the first that it finds, which need not be where the servers are."""
    if len(regions) > 1:
        yield Problem(
            f"the catalogue has {kind} in the regions {', '.join(sorted(regions))}, and nothing says which is meant",
            "set region_name in [openstack]",
            grave=True,
        )


def _rivals(cloud: Cloud) -> Iterator[Problem]:
    """Cinder shows an administrator all snapshots, in whatever project, so that the newest is the safety copy."""
    query = {"user.id": cloud.user_id(), "effective": "1", "include_names": "1"}
    try:
        found = cloud.service("identity").get("/role_assignments", documents.ASSIGNMENTS, **query)
    except StillframeError as error:
        yield Problem(
            f"nobody can tell whether the service's user is an administrator in projects of tenants: {error.message}",
            "see that it may list role assignments, or look yourself: openstack role assignment list --user <it>",
        )
        return
    projects = {
        one["scope"]["project"].get("id", ""): one["scope"]["project"].get("name", "")
        for one in found
        if one["role"].get("name") == "admin" and "project" in one["scope"]
    }
    projects.pop(cloud.project_id(), None)
    if projects:
        names = sorted(name or project_id for project_id, name in projects.items())
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        yield Problem(
            f"the service's user has the role 'admin' in the projects {', '.join(names[:_SHOWN])}{more}: there Cinder "
            "takes the safety copy for the newest snapshot, and refuses the revert that it was made for",
            "take the role away there, and leave it only in the service's own project",
        )
