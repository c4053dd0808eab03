"""What image files on this machine offer: storage for the instances of another package."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from stillframe.domain.errors import InvalidInput
from stillframe.domain.instance import FileSource
from stillframe.domain.snapshot import VolumeSnapshot
from stillframe.drivers.block_jobs import BlockJobs
from stillframe.drivers.finding import Check, Finding
from stillframe.drivers.inventory import Inventory
from stillframe.drivers.platform import Drivers, Offer, Platform, found
from stillframe.settings import Settings

P = TypeVar("P")


class FilesPlatform(Platform):
    """Image files, whoever runs the guests: which there are, and copying them meanwhile, is offered by its package.

    The records lie in `local/` in the state folder, as they did when one package had QEMU and image files.
    """

    storage = ("files",)
    former = {"local": "files"}  # noqa: RUF012 -- declared by the base
    serves = (FileSource,)
    standard = True

    def open(self, settings: Settings, beside: Sequence[Offer]) -> Offer:
        """See `Platform`."""
        from stillframe.drivers.files.disks import Disks
        from stillframe.drivers.files.images import Images
        from stillframe.drivers.files.leftovers import FileLeftovers
        from stillframe.drivers.files.storage import FileStorage
        from stillframe.drivers.files.takeover import TakeOver
        from stillframe.drivers.image_files.files import Files

        inventory, jobs = _offered(beside, Inventory), _offered(beside, BlockJobs)
        compute = next((one.compute for one in beside if one.compute is not None), None)
        if inventory is None or jobs is None or compute is None:
            raise InvalidInput(
                "the package of the compute driver does not say which image files there are, and who has them open; "
                "choose one that does, such as qemu, or other storage",
                "drivers.storage",
            )
        files, state = Files(), _state(settings)
        storage = FileStorage(inventory, compute, jobs, state, files, Images())
        return Offer(None, storage, (FileLeftovers(Disks(inventory), state, files), TakeOver(files, state)))

    def kept(self, settings: Settings) -> Sequence[VolumeSnapshot]:
        """See `Platform`."""
        from stillframe.drivers.files.records import Records
        from stillframe.drivers.image_files.files import Files

        return [copy.snapshot() for copy in Records(Files(), _state(settings)).all()]

    def findings(self, settings: Settings, drivers: Drivers | None) -> Iterable[Finding | Check]:
        """See `Platform`: the disks, and the file systems that they lie on."""
        from stillframe.drivers.files import health

        inventory = None if drivers is None else drivers.ability(Inventory)
        return () if inventory is None else health.look(settings, inventory)


def _state(settings: Settings) -> Path:
    return settings.state_dir / "local"


def _offered(beside: Sequence[Offer], port: type[P]) -> P | None:
    return next((one for offer in beside for one in found(offer.abilities, port)), None)
