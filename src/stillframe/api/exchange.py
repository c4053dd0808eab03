"""One request as its handler sees it, and the absolute URIs that its reply may need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from stillframe.paths import CINDER, NOVA, PROGRESS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stillframe.service.caller import Caller
    from stillframe.service.instance_snapshots import SnapshotService
    from stillframe.service.instances import InstanceService
    from stillframe.service.metrics import Metrics
    from stillframe.service.volume_snapshots import VolumeSnapshotService
    from stillframe.service.workers import WorkerService

_PREFIXED: Final = (f"{NOVA.folder}/", f"{CINDER.folder}/")


@dataclass(frozen=True, slots=True)
class Services:
    """What handlers work with."""

    snapshots: SnapshotService
    instances: InstanceService
    volume_snapshots: VolumeSnapshotService
    workers: WorkerService
    metrics: Metrics
    max_limit: int
    public_endpoint: str | None


@dataclass(frozen=True, slots=True)
class Links:
    """Absolute URIs in the form that the client itself used.

    `base` has no slash at its end. `path` is the request's own, decoded. `query` is the request's own.
    """

    base: str
    path: str
    query: Mapping[str, str]

    def task(self, project_id: str, action: str, task_id: str, snapshot_id: str) -> str:
        """Where the progress of a task is; the project is the caller's, else it could not be fetched."""
        query = urlencode({"action": action, "task_id": task_id, "id": snapshot_id})
        return f"{self.volume(project_id)}{PROGRESS}?{query}"

    def compute(self, project_id: str, version: str = NOVA.version) -> str:
        return f"{self.base}{self._prefix(NOVA.folder)}{version}/{quote(project_id, safe='')}"

    def volume(self, project_id: str, version: str = CINDER.version) -> str:
        return f"{self.base}{self._prefix(CINDER.folder)}{version}/{quote(project_id, safe='')}"

    def next_page(self, marker: str) -> str:
        """The same list, behind the item `marker`."""
        return f"{self.base}{quote(self.path)}?{urlencode({**self.query, 'marker': marker})}"

    def _prefix(self, prefix: str) -> str:
        return prefix if self.path.startswith(_PREFIXED) else ""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that is authenticated and whose query and body are valid.

    `ids` are the variable parts of the path. `query` and `body` are instances of the models that the route names.
    """

    services: Services
    caller: Caller
    links: Links
    ids: Mapping[str, str]
    query: Any
    body: Any
