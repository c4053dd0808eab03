"""What the shelf offers: storage for the instances of any other package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from oslo_config import cfg

from stillframe.domain.errors import InvalidInput
from stillframe.drivers.finding import Finding, fail, ok
from stillframe.drivers.platform import Drivers, Offer, Platform
from stillframe.settings import Group, Settings


class ShelfPlatform(Platform):
    """Chosen by `[drivers] storage = shelf`."""

    storage = ("shelf",)
    groups = (Group("shelf", [cfg.StrOpt("folder", help="Where the volumes and their copies are.")]),)

    def check(self, settings: Settings) -> None:
        """See `Extension`."""
        if self.stores(settings) and not settings.conf.shelf.folder:
            raise InvalidInput("the shelf needs a folder", "shelf.folder")

    def open(self, settings: Settings, beside: Sequence[Offer]) -> Offer:
        """See `Platform`."""
        from stillframe_shelf.storage import ShelfStorage  # noqa: PLC0415  # only where it is used

        compute = beside[0].compute if beside else None
        if compute is None:
            raise InvalidInput("the shelf needs a compute driver of another package", "drivers.compute")
        return Offer(storage=ShelfStorage(Path(settings.conf.shelf.folder), compute))

    def findings(self, settings: Settings, drivers: Drivers | None) -> Iterator[Finding]:  # noqa: ARG002 -- of the port
        """See `Platform`."""
        folder = Path(settings.conf.shelf.folder)
        if folder.is_dir():
            yield ok("shelf", str(folder))
        else:
            yield fail("shelf", f"{folder} is not there", "make it, or correct folder in [shelf]")
