"""What the reference offers."""

from __future__ import annotations

from collections.abc import Sequence

from stillframe.domain.instance import MemorySource
from stillframe.drivers.platform import Offer, Platform
from stillframe.settings import Settings


class MemoryPlatform(Platform):
    """The two drivers, and the world that they share for whoever fills it."""

    compute = ("memory",)
    storage = ("memory",)
    serves = (MemorySource,)

    def open(self, settings: Settings, beside: Sequence[Offer]) -> Offer:  # noqa: ARG002 -- it has no settings
        """See `Platform`."""
        from stillframe.drivers.memory.driver import MemoryDriver

        driver = MemoryDriver()
        return Offer(driver.compute, driver.storage, (driver,))
