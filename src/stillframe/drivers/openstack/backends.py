"""What Cinder's back ends say of themselves, and what follows from it for putting volumes back."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stillframe.drivers.openstack import documents
from stillframe.drivers.openstack.cloud import Cloud
from stillframe.drivers.openstack.volumes import STORAGE, Document

EXTENSION: Final = "stillframe-revert"
_LOOK_AGAIN_SECONDS: Final = 60.0
# A thick volume that is exported is merged with its snapshot only when it is activated next, days later perhaps, and a
# thin one has no revert but Cinder's sparse copy: cinder/volume/drivers/lvm.py, revert_to_snapshot.
_LVM: Final = "LVMVolumeDriver:"


@dataclass(frozen=True, slots=True)
class Habits:
    """How the back end of a volume reverts and copies; see `strategy.Circumstances`."""

    reverts: bool
    sparse: bool


class Backends:
    """The pools and extensions of Cinder, looked up at most once a minute.

    `reverting`: names of back ends whose drivers revert by themselves although they report sparse copies.
    """

    def __init__(self, cloud: Cloud, reverting: Collection[str]) -> None:
        self._cloud = cloud
        self._reverting = frozenset(reverting)
        self._seen: dict[str, tuple[float, Any]] = {}

    def habits(self, volume: Document) -> Habits:
        """Of a volume whose back end does not show itself the worst is thought."""
        return self.known(volume) or Habits(reverts=False, sparse=True)

    def known(self, volume: Document) -> Habits | None:
        """The same, None of a volume whose back end does not show itself."""
        capabilities = self._pools().get(volume.get("os-vol-host-attr:host") or "")
        return None if capabilities is None else self._habits(capabilities)

    def by_pool(self) -> Mapping[str, Habits]:
        """Of every pool that shows itself, by its name."""
        return {name: self._habits(capabilities) for name, capabilities in self._pools().items()}

    def _habits(self, capabilities: Mapping[str, Any]) -> Habits:
        sparse = capabilities.get("sparse_copy_volume") not in (None, False, "False")
        by_itself = not sparse or capabilities.get("volume_backend_name") in self._reverting
        lvm = str(capabilities.get("location_info", "")).startswith(_LVM)
        return Habits(reverts=by_itself and not lvm, sparse=sparse)

    def extended(self) -> bool:
        """Whether our extension is in Cinder's API."""
        aliases = self._once("/extensions", documents.EXTENSIONS, lambda found: {one["alias"] for one in found})
        return EXTENSION in aliases

    def _pools(self) -> Mapping[str, Mapping[str, Any]]:
        def by_name(found: Sequence[Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
            return {pool["name"]: pool["capabilities"] for pool in found}

        path = "/scheduler-stats/get_pools?detail=true"
        pools: Mapping[str, Mapping[str, Any]] = self._once(path, documents.POOLS, by_name)
        return pools

    def _once(self, path: str, shape: documents.Shape, of: Any) -> Any:
        seen = self._seen.get(path)
        if seen is None or time.monotonic() - seen[0] > _LOOK_AGAIN_SECONDS:
            seen = self._seen[path] = (time.monotonic(), of(self._cloud.service(STORAGE).get(path, shape)))
        return seen[1]
