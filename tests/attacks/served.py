"""Every request that the route table has a place for, made from the table: what is added to it is attacked too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from stillframe.api.routes import ROUTES
from stillframe.domain.snapshot import CopyKind, CopyName

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stillframe.api.routes import Route

_LOOKED_FOR: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Things:
    """What requests name: one thing of each kind."""

    project_id: str
    server_id: str
    snapshot_id: str
    volume_id: str
    task_id: str

    @property
    def ids(self) -> frozenset[str]:
        return frozenset({self.server_id, self.snapshot_id, self.volume_id, self.task_id, self.copy_id})

    @property
    def copy_id(self) -> str:
        """The volume snapshot that the task made of the volume, of a driver that takes our ids for them."""
        return CopyName(CopyKind.SNAPSHOT, self.snapshot_id, self.volume_id, self.task_id).uuid


@dataclass(frozen=True, slots=True)
class Probe:
    """One request; `lists` where its reply is a collection, which is empty for whoever has nothing."""

    method: str
    path: str
    body: Mapping[str, Any] | None
    lists: bool


def probes(things: Things) -> Iterator[Probe]:
    """All forms of all routes that need credentials, with each of their actions.

    Raises `KeyError` for a new action, query or part of a path, of which something has to be known here first.
    """
    for route in ROUTES:
        if route.public:
            continue
        for form in route.forms():
            path = form.format(**{name: _part(name, route, things) for name in _LOOKED_FOR.findall(form)})
            query = _QUERIES[route.query.__name__](things) if route.query else [{}]
            for asked in query:
                whole = f"{path}?{urlencode(asked)}" if asked else path
                lists = route.query is not None and "{" not in form.rpartition("/")[2] and "progress" not in form
                for body in _bodies(route, things):
                    yield Probe(route.method, whole, body, lists)


def _part(name: str, route: Route, things: Things) -> str:
    # The one name that means what its resource is.
    if name == "id":
        return {"instance-snapshots": things.snapshot_id}[route.template.split("/")[4]]
    return {
        "project_id": things.project_id,
        "server_id": things.server_id,
        "volume_id": things.volume_id,
        "snapshot_id": things.copy_id,
    }[name]


def _bodies(route: Route, things: Things) -> Iterator[Mapping[str, Any] | None]:
    if not route.actions:
        yield None
    for action in route.actions:
        for content in _BODIES[action.name](things):
            yield {action.name: content}


_BODIES: Final[Mapping[str, Any]] = {
    "vm-snapshot": lambda of: [{"name": "mine"}, {"name": "mine", "volumes": [of.volume_id]}],
    "vm-restore": lambda of: [
        {"instance_snapshot_id": of.snapshot_id, "force": True, **way}
        for way in ({}, {"retry": True}, {"rollback": True})
    ],
    "os-start": lambda _of: [None],
    "os-stop": lambda _of: [None],
    "copy-progress": lambda _of: [{"details": True}],
    "instance-snapshot": lambda _of: [{"name": "mine"}],
}
_QUERIES: Final[Mapping[str, Any]] = {
    "ListQuery": lambda of: [
        {},
        {"all_tenants": "true"},
        {"instance_id": of.server_id},
        {"marker": of.snapshot_id},
    ],
    "CollectionQuery": lambda of: [
        {},
        {"all_tenants": "true"},
        {"project_id": of.project_id, "tenant_id": of.project_id},
        {"marker": of.server_id},
    ],
    "VolumeSnapshotQuery": lambda of: [
        {},
        {"all_tenants": "true"},
        {"volume_id": of.volume_id},
        {"marker": of.copy_id},
    ],
    "ServicesQuery": lambda of: [{}, {"host": of.server_id}],
    "ProgressQuery": lambda of: [
        {"action": action, "task_id": of.task_id, "id": of.snapshot_id}
        for action in ("snapshot", "restore", "restore-retry", "restore-rollback", "delete")
    ],
}
