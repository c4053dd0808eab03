"""What the reference offers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stillframe.domain.instance import MemorySource
from stillframe.drivers.finding import Check, Finding, warn
from stillframe.drivers.platform import Drivers, Offer, Platform
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

    def findings(self, settings: Settings, drivers: Drivers | None) -> Iterable[Finding | Check]:  # noqa: ARG002 -- of the port
        """See `Platform`: whoever has chosen it by mistake learns that nothing can be declared."""
        told = "instances, volumes and copies are made by code, in the memory of one process, and are gone with it"
        yield warn("memory", told, "keep it for tests of drivers; for instances that exist choose other drivers")
