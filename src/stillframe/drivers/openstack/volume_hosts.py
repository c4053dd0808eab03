"""Whether the cinder-volume of a volume lives, seen before it is asked for anything, and while it is waited for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote

from stillframe.domain.errors import BackendError, Conflict
from stillframe.drivers.openstack import documents
from stillframe.drivers.openstack.cloud import Cloud
from stillframe.drivers.openstack.documents import moment
from stillframe.drivers.openstack.volumes import STORAGE, Document

LOG = logging.getLogger(__name__)

_UP: Final = "up"
_ANSWER_SECONDS: Final = 10.0
# Between two looks at the services while something is waited for; down at two of them is down.
#: Between two looks whether a service lives.
INTERVAL: Final = 5.0
_LOOKS: Final = 2
_MENDED_BY: Final = "have the operator start it (openstack volume service list shows it), and ask again"


class ServiceDown(BackendError):
    """The service that has to do what is waited for is dead, as Cinder tells: it does nothing for now."""


class VolumeHosts:
    """The services behind Cinder's API, each of which works for the volumes of a back end."""

    def __init__(self, cloud: Cloud, interval: float = INTERVAL) -> None:
        self._cloud = cloud
        self._interval = interval

    def require(self, described: Sequence[Document]) -> None:
        """Raises `Conflict` if nobody lives who could do something with one of these volumes."""
        by_host = {_host(volume): volume["id"] for volume in described}
        for host, volume_id in sorted(by_host.items()):
            if host and not self._answers(host):
                refusal = Conflict(
                    f"The cinder-volume that volume {volume_id} belongs to does not answer: what it is asked for would "
                    f"be queued and done whenever it is back. Wait for it, or {_MENDED_BY}."
                )
                refusal.detail = f"cinder-volume of {host}"
                raise refusal

    def watch(self, volume: Document) -> Callable[[], None]:
        """What raises `ServiceDown`, called now and then, once the service that works for a volume is down."""
        host, volume_id = _host(volume), volume["id"]
        seen = [0]
        due = [time.monotonic() + self._interval]

        def look() -> None:
            if not host or time.monotonic() < due[0]:
                return
            seen[0] = seen[0] + 1 if self.is_down(host) else 0
            due[0] = time.monotonic() + self._interval
            if seen[0] >= _LOOKS:
                down = ServiceDown(f"The cinder-volume that volume {volume_id} belongs to is down; {_MENDED_BY}.")
                down.detail = f"cinder-volume of {host}"
                raise down

        return look

    def is_down(self, host: str) -> bool:
        """Whether Cinder has not heard of the service for a while, nor of another one of its cluster."""
        services = self._services()
        own = [one for one in services if one["host"] == host]
        clusters = {one.get("cluster") for one in own} - {None, ""}
        able = [one for one in services if one in own or one.get("cluster") in clusters]
        return bool(able) and all(one["state"] != _UP for one in able)

    def age(self, volume: Document) -> float:
        """Seconds since a volume was last changed, by the clocks of the cloud; 0 where they do not tell."""
        changed = volume.get("updated_at")
        reports = [told for one in self._services() if (told := one.get("updated_at"))]
        if not changed or not reports:
            return 0.0
        return max(0.0, (max(map(moment, reports)) - moment(changed)).total_seconds())

    def _services(self) -> Sequence[Document]:
        found: Sequence[Any] = self._cloud.service(STORAGE).get(
            "/os-services", documents.SERVICES, binary="cinder-volume"
        )
        return found

    def _answers(self, host: str) -> bool:
        """Asked for what changes nothing and what nobody but the service can tell."""
        return self._cloud.service(STORAGE).probe(f"/capabilities/{quote(host)}", _ANSWER_SECONDS) is not None


def _host(volume: Document) -> str:
    return str(volume.get("os-vol-host-attr:host") or "").partition("#")[0]
