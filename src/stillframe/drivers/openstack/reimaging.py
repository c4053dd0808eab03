"""Copying an older snapshot over its volume by Cinder's `os-reimage`, and taking back what that changes besides.

Cinder copies from a snapshot where an image without content names one as its block device, as the images do that Nova
makes of servers that boot from volumes. It then takes the volume for one made of that image: bootable, with the image's
metadata. What it was before is kept with the image until it is put right, so a kill in between loses nothing.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from stillframe.domain.errors import BackendError, NotFound
from stillframe.drivers.call import Call
from stillframe.drivers.openstack import documents
from stillframe.drivers.openstack.cloud import Api, Cloud
from stillframe.drivers.openstack.volumes import STORAGE, Document, get_volume
from stillframe.foreign import replies

_NAMED: Final = "stillframe revert "
# In the service's own project there are hardly others.
_MOST: Final = "1000"
_BEFORE: Final = "stillframe_before"


class Reimaging:
    """One helping image a snapshot, found again by its name."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def prepare(self, call: Call, volume: Document, snapshot_id: str) -> None:
        """Make the image, and note what the volume is now; one that an earlier attempt made stays as it is."""
        image = self._find(snapshot_id)
        if image is None:
            before = {"bootable": volume["bootable"], "metadata": volume.get("volume_image_metadata") or {}}
            device = {
                "source_type": "snapshot",
                "destination_type": "volume",
                "snapshot_id": snapshot_id,
                "boot_index": 0,
                "volume_size": volume["size"],
            }
            image = self._images.make(
                "/v2/images",
                documents.NEW_IMAGE,
                {
                    "name": _name(snapshot_id),
                    "disk_format": "raw",
                    # Nothing but the snapshot is ever read. A Cinder that knows no such images (before 2025.1) tries to
                    # unpack the content, which is none, and fails before it has touched the volume.
                    "container_format": "compressed",
                    "visibility": "private",
                    "block_device_mapping": json.dumps([device]),
                    "bdm_v2": "True",
                    _BEFORE: json.dumps(before),
                },
                call.request_id,
            )
        if image["status"] == "queued":
            self._images.put(f"/v2/images/{image['id']}/file", b"", "application/octet-stream")

    def action(self, snapshot_id: str) -> Mapping[str, Any]:
        """What has Cinder copy over the snapshot's volume; raises `NotFound`."""
        image = self._find(snapshot_id)
        if image is None:
            raise NotFound(f"The image that names snapshot {snapshot_id} is gone.")
        return {"os-reimage": {"image_id": image["id"], "reimage_reserved": False}}

    def tidy(self, call: Call, volume_id: str, snapshot_id: str) -> None:
        """Put the volume's flag and image metadata back, and remove the image."""
        image = self._find(snapshot_id)
        if image is None:
            return
        before = _before(image)
        api, path = self._cloud.service(STORAGE), f"/volumes/{volume_id}/action"
        now = get_volume(api, volume_id).get("volume_image_metadata") or {}
        for key in now.keys() - before["metadata"].keys():
            api.act(path, {"os-unset_image_metadata": {"key": key}}, call.request_id)
        if before["metadata"]:
            api.act(path, {"os-set_image_metadata": {"metadata": before["metadata"]}}, call.request_id)
        api.act(path, {"os-set_bootable": {"bootable": before["bootable"] == "true"}}, call.request_id)
        self.forget(call, snapshot_id)

    def forget(self, call: Call, snapshot_id: str) -> None:
        """Remove the image; there are two if a reply was lost while it was made."""
        while (image := self._find(snapshot_id)) is not None:
            self._images.delete(f"/v2/images/{image['id']}", call.request_id)

    def left(self) -> dict[str, str]:
        """The snapshots whose images are there, each with the state of its images as Glance tells it."""
        query = {"owner": self._cloud.project_id(), "limit": _MOST}
        states: dict[str, list[str]] = defaultdict(list)
        for image in self._images.get("/v2/images", documents.IMAGES, **query):
            name = image.get("name") or ""
            if name.startswith(_NAMED):
                states[name.removeprefix(_NAMED)].append(f"{image['id']} {image.get('updated_at')}")
        return {snapshot_id: " ".join(sorted(some)) for snapshot_id, some in states.items()}

    @property
    def _images(self) -> Api:
        return self._cloud.service("image")

    def _find(self, snapshot_id: str) -> dict[str, Any] | None:
        query = {"name": _name(snapshot_id), "owner": self._cloud.project_id()}
        return next(iter(self._images.get("/v2/images", documents.IMAGES, **query)), None)


def _before(image: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the volume was before; raises `BackendError` where somebody has changed the note."""
    try:
        return replies.shaped(documents.BEFORE, replies.document(str(image.get(_BEFORE, "")).encode()))
    except replies.Malformed as problem:
        raise BackendError(f"Image {image['id']} does not say what its volume was before: {problem}") from None


def _name(snapshot_id: str) -> str:
    return f"{_NAMED}{snapshot_id}"
