"""Finding the packages of drivers that are installed, and opening those that the settings choose."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from stillframe.domain.errors import InvalidInput
from stillframe.domain.instance import Source
from stillframe.drivers.absent import Absent, BesideAbsent
from stillframe.drivers.platform import Drivers, Offer, Platform
from stillframe.drivers.router import Member, Router
from stillframe.settings import Settings
from stillframe.settings.extensions import Port, installed


def platforms() -> Sequence[Platform]:
    """All that are installed; raises `InvalidInput` for a package that cannot be loaded."""
    return [one for one in installed() if isinstance(one, Platform)]


def used(settings: Settings) -> Sequence[Platform]:
    """Those that the settings use: that of the compute driver first, then those of storage, then what others add."""
    there = platforms()
    first = [
        _offering(there, "compute", settings.drivers.compute),
        *(_offering(there, "storage", name) for name in settings.drivers.storage),
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
    if compute is None:
        raise InvalidInput("its package does not offer the driver that it names", "drivers.compute")
    members = [
        _member(name, platform, by_platform[platform])
        for name in settings.drivers.storage
        for platform in [_offering(using, "storage", name)]
    ]
    storage = members[0].driver if len(members) == 1 else Router(_apart(members), compute)
    serves = tuple(source for member in members for source in member.serves)
    storage = BesideAbsent(storage, members[0].name, serves, absent(settings), compute)
    return Drivers(compute, storage, tuple(ability for offer in offers for ability in offer.abilities))


def absent(settings: Settings) -> tuple[Absent, ...]:
    """The storage drivers that are installed, and that the settings do not name."""
    return tuple(
        Absent(name, tuple(platform.serves), partial(platform.kept, settings))
        for platform in platforms()
        for name in platform.storage
        if name not in settings.drivers.storage
    )


def _member(name: str, platform: Platform, offer: Offer) -> Member:
    if offer.storage is None:
        raise InvalidInput(f"the package of '{name}' does not offer the driver that it names", "drivers.storage")
    return Member(name, offer.storage, tuple(platform.serves))


def _apart(members: Sequence[Member]) -> Sequence[Member]:
    """Several drivers, each of which has volumes of its own; raises `InvalidInput` otherwise."""
    owners: dict[type[Source], Member] = {}
    for member in members:
        if not member.serves:
            raise InvalidInput(
                f"'{member.name}' does not say which volumes are its own, so that it stands alone; name no other one",
                "drivers.storage",
            )
        for source in member.serves:
            if source in owners:
                raise InvalidInput(
                    f"'{owners[source].name}' and '{member.name}' see to the same volumes; name one of them",
                    "drivers.storage",
                )
            owners[source] = member
    return members


def _offering(there: Sequence[Platform], port: Port, name: str) -> Platform:
    return next(one for one in there if name in one.offers(port))
