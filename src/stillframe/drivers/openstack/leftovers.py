"""What may be left of operations on a cloud: servers that are paused, and helping images of reimaging."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from stillframe.domain.errors import NotFound
from stillframe.drivers.call import Call
from stillframe.drivers.leftovers import DriverLeftovers, FoundDraft, Loss
from stillframe.drivers.openstack import documents
from stillframe.drivers.openstack.cloud import Cloud
from stillframe.drivers.openstack.pausing import Pausing
from stillframe.drivers.openstack.reimaging import Reimaging
from stillframe.drivers.openstack.servers import fence_owner
from stillframe.drivers.openstack.volumes import STORAGE, Document, get_snapshot, get_volume

# All paused servers of the cloud are looked through, and several processes do so.
#: Shortest time between two looks.
INTERVAL: Final = 60.0
# Of volumes that Cinder does nothing with.
_AT_REST: Final = ("in-use", "available", "error")


class HelpingImages:
    """The images that reimaging has left, which nobody is going to use: no restore holds the server or the volume."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._reimaging = Reimaging(cloud)

    def unused(self) -> list[FoundDraft]:
        """As drafts, called by the snapshots that they were made for."""
        return [
            FoundDraft(snapshot_id, state)
            for snapshot_id, state in self._reimaging.left().items()
            if not self._is_used(self._volume_of(snapshot_id))
        ]

    def remove(self, snapshot_id: str) -> None:
        """Give the volume back what the image notes, where there is a volume, and remove the image."""
        call = Call(f"of snapshot {snapshot_id}", "", lambda: None, lambda _done, _total: None)
        volume = self._volume_of(snapshot_id)
        if volume is None:
            self._reimaging.forget(call, snapshot_id)
        else:
            self._reimaging.tidy(call, volume["id"], snapshot_id)

    def _volume_of(self, snapshot_id: str) -> Document | None:
        api = self._cloud.service(STORAGE)
        try:
            return get_volume(api, get_snapshot(api, snapshot_id)["volume_id"])
        except NotFound:
            return None

    def _is_used(self, volume: Document | None) -> bool:
        if volume is None:
            return False
        servers = [one["server_id"] for one in volume["attachments"] if one["server_id"]]
        return volume["status"] not in _AT_REST or any(self._is_fenced(one) for one in servers)

    def _is_fenced(self, server_id: str) -> bool:
        try:
            server = self._cloud.service("compute").get(f"/servers/{server_id}", documents.SERVER)
        except NotFound:
            return False
        return fence_owner(server) is not None


class CloudLeftovers(DriverLeftovers):
    """See `DriverLeftovers`; Nova is asked once in `interval` seconds. Without reimaging there are no `images`."""

    def __init__(self, pausing: Pausing, images: HelpingImages | None = None, interval: float = INTERVAL) -> None:
        self._pausing = pausing
        self._interval = interval
        self._images = images
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._found: list[str] = []

    def quiesced(self) -> Sequence[str]:
        """See `DriverLeftovers`; of a server that an operation holds at present Nova says the same."""
        with self._lock:
            if time.monotonic() - self._looked > self._interval:
                self._found = self._pausing.abandoned()
                self._looked = time.monotonic()
            return list(self._found)

    def let_run(self, instance_id: str, require_free: Callable[[], None]) -> None:
        """See `DriverLeftovers`: the pause that Nova tells of now."""
        pause = self._pausing.pause_of_ours(instance_id)
        require_free()
        if pause is not None:
            self._pausing.let_run(instance_id, pause)
        with self._lock:
            self._found = [one for one in self._found if one != instance_id]

    def losses(self) -> Sequence[Loss]:
        """See `DriverLeftovers`."""
        return ()

    def orphans(self) -> Sequence[str]:
        """See `DriverLeftovers`."""
        return ()

    def drafts(self) -> Sequence[FoundDraft]:
        """See `DriverLeftovers`: the snapshots that helping images were made for."""
        return () if self._images is None else self._images.unused()

    def remove(self, draft: FoundDraft) -> None:
        """See `DriverLeftovers`: the volume gets back what it was noted to have been."""
        if self._images is not None and draft in self._images.unused():
            self._images.remove(draft.id)
