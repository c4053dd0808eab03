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


class MaybeQueued(BackendError):
    """What is waited for may still be in the queue of its service, which does it whenever it comes to it."""


class VolumeHosts:
    """The services behind Cinder's API, each of which works for the volumes of a back end."""

    def __init__(self, cloud: Cloud, interval: float = INTERVAL) -> None:
        self._cloud = cloud
        self._interval = interval
        # By volume: when it was last changed at the time, and when its service was first seen to have begun.
        self._begun: dict[str, tuple[object, float]] = {}

    def require(self, described: Sequence[Document]) -> None:
        """Raises `Conflict` if nobody lives who could do something with one of these volumes."""
        by_host = {_host(volume): volume["id"] for volume in described}
        for host, volume_id in sorted(by_host.items()):
            if host and not self.answers(host):
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

    def revert(self, volume: Document) -> Revert:
        """What is known of the revert that a volume was seen in."""
        return Revert(self, volume, self._interval, self._begun)

    def _services(self) -> Sequence[Document]:
        found: Sequence[Any] = self._cloud.service(STORAGE).get(
            "/os-services", documents.SERVICES, binary="cinder-volume"
        )
        return found

    def answers(self, host: str) -> bool:
        """Asked for what changes nothing and what nobody but the service can tell."""
        return self._cloud.service(STORAGE).probe(f"/capabilities/{quote(host)}", _ANSWER_SECONDS) is not None


class Revert:
    """A revert that Cinder was asked for, and whether the service that does it has come to it.

    Commands and questions wait in one queue: whoever answers a question has begun all that it was asked for before.
    What had begun dies with its service. Nobody can take the rest back, and it is done whenever the service is there
    again; so its statuses in Cinder are left alone, for only they show its end.
    """

    def __init__(
        self, hosts: VolumeHosts, volume: Document, interval: float, begun: dict[str, tuple[object, float]]
    ) -> None:
        self._hosts, self._volume, self._interval = hosts, volume, interval
        self._require_up = hosts.watch(volume)
        self._due = 0.0
        # Shared by all attempts of this process; another one knows nothing, and waits anew.
        self._all = begun

    @property
    def begun(self) -> bool:
        """Whether the service was seen to have come to it."""
        return self._since is not None

    @property
    def seconds(self) -> float:
        """How long the service is known to have been at it; 0 if nobody has seen that it began."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def watch(self) -> None:
        """See `VolumeHosts.watch`; raises `MaybeQueued` where the service went down before it was seen to begin."""
        try:
            self._require_up()
        except ServiceDown as down:
            if self.begun:
                raise
            raise self._queued(down.message, down.detail) from None
        host = _host(self._volume)
        if not self.begun and time.monotonic() >= self._due:
            if host and self._hosts.answers(host):
                self._all[self._volume["id"]] = (self._volume.get("updated_at"), time.monotonic())
            self._due = time.monotonic() + self._interval

    def require_begun(self) -> None:
        """Raises `MaybeQueued` if nobody has seen the service come to it."""
        if not self.begun:
            volume_id = self._volume["id"]
            silent = f"The cinder-volume that volume {volume_id} belongs to does not answer; {_MENDED_BY}."
            raise self._queued(silent, f"cinder-volume of {_host(self._volume)}")

    def end(self) -> None:
        """It is over, and nothing needs to be known of it any more."""
        self._all.pop(self._volume["id"], None)

    @property
    def _since(self) -> float | None:
        changed, since = self._all.get(self._volume["id"], (None, None))
        return since if changed == self._volume.get("updated_at") else None

    def _queued(self, why: str, detail: str) -> MaybeQueued:
        queued = MaybeQueued(
            f"{why} The revert that it was asked for may be in its queue, and is then done first; wait for its end."
        )
        queued.detail = detail
        return queued


def _host(volume: Document) -> str:
    return str(volume.get("os-vol-host-attr:host") or "").partition("#")[0]
