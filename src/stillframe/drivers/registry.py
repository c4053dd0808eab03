"""Finding the packages of drivers that are installed, and opening those that the settings choose."""

from __future__ import annotations

from collections.abc import Sequence

from stillframe.domain.errors import InvalidInput
from stillframe.drivers.platform import Drivers, Offer, Platform
from stillframe.settings import Settings
from stillframe.settings.extensions import Port, installed


def platforms() -> Sequence[Platform]:
    """All that are installed; raises `InvalidInput` for a package that cannot be loaded."""
    return [one for one in installed() if isinstance(one, Platform)]


def used(settings: Settings) -> Sequence[Platform]:
    """Those that the settings use: that of the compute driver first, then that of storage, then what others add."""
    there = platforms()
    first = [
        _offering(there, "compute", settings.drivers.compute),
        _offering(there, "storage", settings.drivers.storage),
    ]
    ordered = [*first, *(one for one in there if one.wanted(settings))]
    return [one for number, one in enumerate(ordered) if one not in ordered[:number]]


def open_drivers(settings: Settings) -> Drivers:
    """The drivers that the settings name; raises `InvalidInput` for one that does not exist or cannot be used."""
    using = used(settings)
    offers: list[Offer] = []
    for platform in using:
        offers.append(platform.open(settings, offers))
    by_platform = dict(zip(using, offers, strict=True))
    compute = by_platform[_offering(using, "compute", settings.drivers.compute)].compute
    storage = by_platform[_offering(using, "storage", settings.drivers.storage)].storage
    if compute is None or storage is None:
        port = "compute" if compute is None else "storage"
        raise InvalidInput("its package does not offer the driver that it names", f"drivers.{port}")
    return Drivers(compute, storage, tuple(ability for offer in offers for ability in offer.abilities))


def _offering(there: Sequence[Platform], port: Port, name: str) -> Platform:
    return next(one for one in there if name in one.offers(port))
