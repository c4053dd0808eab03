"""What a package of drivers offers, and what of several packages comes together behind the service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from stillframe.domain.instance import Source
from stillframe.domain.snapshot import VolumeSnapshot
from stillframe.drivers.compute import ComputeDriver
from stillframe.drivers.finding import Check, Finding
from stillframe.drivers.storage import StorageDriver
from stillframe.settings import Settings
from stillframe.settings.extensions import Extension

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Offer:
    """What one package has opened: its drivers, and further objects for what is asked for by type.

    `abilities` implement ports such as `Visibility`, `DriverLeftovers`, `Inventory`, `BlockJobs`, `Problems` and
    `FlashCopy`; they are found by being instances of these, so that a package has them as far as its platform does.
    """

    compute: ComputeDriver | None = None
    storage: StorageDriver | None = None
    abilities: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Drivers:
    """The platforms behind the service: one driver a port, and whatever else the packages can do."""

    compute: ComputeDriver
    storage: StorageDriver
    abilities: tuple[object, ...] = ()

    def ability(self, port: type[P]) -> P | None:
        """The first that implements an optional port, or None."""
        return next(iter(self.all(port)), None)

    def all(self, port: type[P]) -> Sequence[P]:
        """All that implement an optional port: what is asked of each platform for itself."""
        return found(self.abilities, port)


def found(abilities: Iterable[object], port: type[P]) -> Sequence[P]:
    """Those that implement a port."""
    return [one for one in abilities if isinstance(one, port)]


class Platform(Extension, ABC):
    """One package: its names and sections are known before it is used, see `Extension`.

    The entry point names the class, which is made without arguments. Importing its module has to be cheap: what it
    stands on is loaded in `open`. `serves`: the types of the sources of volumes that its storage driver sees to, where
    it may stand beside others; there `storage` is one name.
    """

    serves: ClassVar[Sequence[type[Source]]] = ()

    def wanted(self, settings: Settings) -> bool:  # noqa: ARG002 -- most have nothing to add
        """Whether it adds abilities although none of its drivers is chosen."""
        return False

    @abstractmethod
    def open(self, settings: Settings, beside: Sequence[Offer]) -> Offer:
        """Make what it offers; nothing is asked of the platform yet. Raises `InvalidInput` for settings of no use.

        `beside`: what the packages offer that were opened before. That of the compute driver is the first.
        """
        ...

    def kept(self, settings: Settings) -> Sequence[VolumeSnapshot]:  # noqa: ARG002 -- as above
        """Copies of its storage driver that are on record on this machine, also where that is not chosen any more."""
        return ()

    def findings(self, settings: Settings, drivers: Drivers | None) -> Iterable[Finding | Check]:  # noqa: ARG002 -- as above
        """What an operator is told who asks how it is; `drivers` is None where they could not be opened.

        Changes nothing and raises nothing: what cannot be looked at is a finding. What may not answer is a check.
        """
        return ()
