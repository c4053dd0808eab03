"""What may be left of operations on a cloud: servers that are paused."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from stillframe.drivers.openstack.pausing import Pausing
from stillframe.drivers.remains import Loss

# All paused servers of the cloud are looked through, and several processes do so.
_SECONDS: Final = 60.0


class CloudRemains:
    """See `Remains`; Nova is asked once a minute at most. Nothing else is kept outside of the cloud's own objects."""

    def __init__(self, pausing: Pausing) -> None:
        self._pausing = pausing
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._found: list[str] = []

    def quiesced(self) -> Sequence[str]:
        """See `Remains`; of a server that an operation holds at present Nova says the same."""
        with self._lock:
            if time.monotonic() - self._looked > _SECONDS:
                self._found = self._pausing.abandoned()
                self._looked = time.monotonic()
            return list(self._found)

    def let_run(self, instance_id: str) -> None:
        """See `Remains`."""
        self._pausing.let_run(instance_id)
        with self._lock:
            self._found = [one for one in self._found if one != instance_id]

    def losses(self) -> Sequence[Loss]:
        """See `Remains`."""
        return ()

    def orphans(self) -> Sequence[str]:
        """See `Remains`."""
        return ()

    def scraps(self, before: datetime) -> Sequence[str]:  # noqa: ARG002 -- there are none, however old
        """See `Remains`."""
        return ()

    def remove(self, scrap: str, before: datetime) -> None:
        """See `Remains`."""
