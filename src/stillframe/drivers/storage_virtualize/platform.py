"""What IBM Storage Virtualize arrays offer: storage for the instances of another package, and the FlashCopy check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from stillframe.domain.errors import InvalidInput
from stillframe.domain.instance import VdiskSource
from stillframe.drivers.finding import Finding
from stillframe.drivers.platform import Drivers, Offer, Platform, found
from stillframe.drivers.storage_virtualize import options
from stillframe.settings import Settings

if TYPE_CHECKING:
    from stillframe.drivers.storage_virtualize.arrays import Arrays
    from stillframe.drivers.storage_virtualize.volumes import Volumes


class StorageVirtualizePlatform(Platform):
    """With arrays in the settings the check is there for the volumes of any other storage driver, too."""

    storage = ("storage_virtualize",)
    serves = (VdiskSource,)
    groups = options.GROUPS

    def check(self, settings: Settings) -> None:
        """See `Extension`."""
        options.read(settings)

    def wanted(self, settings: Settings) -> bool:
        """See `Platform`."""
        return bool(options.read(settings).arrays)

    def open(self, settings: Settings, beside: Sequence[Offer]) -> Offer:
        """See `Platform`."""
        from stillframe.drivers.storage_virtualize.array import Array
        from stillframe.drivers.storage_virtualize.arrays import Arrays
        from stillframe.drivers.storage_virtualize.client import Client
        from stillframe.drivers.storage_virtualize.mappings import FlashCopyCheck
        from stillframe.drivers.storage_virtualize.storage import StorageVirtualize

        chosen = options.read(settings)
        if not chosen.arrays:
            raise InvalidInput("the storage driver needs at least one array", "storage_virtualize.arrays")
        arrays = Arrays([Array(Client(one)) for one in chosen.arrays])
        volumes = _volumes(beside, arrays, chosen.volume_name_template)
        storage, check = StorageVirtualize(chosen, arrays, volumes), FlashCopyCheck(arrays, volumes)
        # Nothing is changed on them where they only answer the check.
        return Offer(None, storage, (check, storage) if self.stores(settings) else (check,))

    def findings(self, settings: Settings, drivers: Drivers | None) -> Iterator[Finding]:
        """See `Platform`: whether the arrays answer, and whether they have what is declared."""
        from stillframe.drivers.storage_virtualize import health
        from stillframe.drivers.storage_virtualize.storage import StorageVirtualize

        yield from health.look(options.read(settings).arrays)
        for storage in found(() if drivers is None else drivers.abilities, StorageVirtualize):
            yield from health.volumes(storage)


def _volumes(beside: Sequence[Offer], arrays: Arrays, template: str) -> Volumes:
    """Instances that are declared name their vdisks; the volumes of any other platform are named by the template."""
    from stillframe.drivers.inventory import Inventory
    from stillframe.drivers.storage_virtualize.volumes import DeclaredVolumes, ManagedVolumes

    for offer in beside:
        for inventory in found(offer.abilities, Inventory):
            return DeclaredVolumes(inventory, arrays)
        if offer.storage is not None:
            return ManagedVolumes(offer.storage, template)
    raise InvalidInput("the package of the compute driver does not say which volumes there are", "drivers.compute")
