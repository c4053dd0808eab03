"""What installed packages add to the settings: names that can be chosen, and sections of their own."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from stillframe.domain.errors import InvalidInput
from stillframe.domain.printable import printable
from stillframe.settings.groups import Group

if TYPE_CHECKING:
    from stillframe.settings.loading import Settings

LOG = logging.getLogger(__name__)

ENTRY_POINTS: Final = "stillframe.drivers"

# Entry points are written when a package is installed: after an update of a checkout they are those of before.
_INSTALL_AGAIN: Final = "install the package again, in a checkout by 'make install'"

Port = Literal["compute", "storage"]
PORTS: Final[tuple[Port, ...]] = ("compute", "storage")


class Extension:
    """What is known of a package before it is used.

    `compute` and `storage` are the names that its drivers are chosen by, `groups` its sections of the settings. The
    first driver of the `standard` one is used where none is named. `former` are names that its drivers were chosen by
    in earlier releases, with the present ones.
    """

    compute: ClassVar[Sequence[str]] = ()
    storage: ClassVar[Sequence[str]] = ()
    former: ClassVar[Mapping[str, str]] = {}
    standard: ClassVar[bool] = False
    groups: ClassVar[Sequence[Group]] = ()

    def check(self, settings: Settings) -> None:
        """Look at the own sections once they are read; raises `ValueError` or `InvalidInput` naming what is wrong."""

    def offers(self, port: Port) -> Sequence[str]:
        """The names of the drivers for a port."""
        return self.compute if port == "compute" else self.storage

    def stores(self, settings: Settings) -> bool:
        """Whether a storage driver of it is chosen."""
        return not set(self.storage).isdisjoint(settings.drivers.storage)


def installed() -> Sequence[Extension]:
    """All packages that are installed, by the names of their entry points.

    Raises `InvalidInput` for one that cannot be loaded, and for two that offer the same name for the same port.
    """
    found = sorted(entry_points(group=ENTRY_POINTS), key=lambda one: one.name)
    extensions = [_loaded(one) for one in found]
    for port in PORTS:
        owners: dict[str, EntryPoint] = {}
        for point, extension in zip(found, extensions, strict=True):
            for name in extension.offers(port):
                if name in owners:
                    raise InvalidInput(
                        f"Both the {_told(owners[name])} and the {_told(point)} offer a {port} driver '{name}'; "
                        "uninstall one of them."
                    )
                owners[name] = point
    return extensions


def names(extensions: Iterable[Extension], port: Port) -> list[str]:
    """What can be chosen for a port, by name."""
    return sorted(name for extension in extensions for name in extension.offers(port))


def chosen(extensions: Sequence[Extension], port: Port, name: str | None) -> str:
    """The name itself if it can be chosen, the standard driver's without one; raises `InvalidInput`."""
    if name is None:
        standard = [one.offers(port)[0] for one in extensions if one.standard and one.offers(port)]
        if len(standard) != 1:
            raise InvalidInput(f"nothing says which driver is meant; {_there_are(extensions, port)}", port)
        return standard[0]
    if name not in names(extensions, port):
        present = next((one.former[name] for one in extensions if one.offers(port) and name in one.former), None)
        if present is not None:
            LOG.warning("%s = %s in [drivers] is deprecated; its name is %s now", port, name, present)
            return present
        raise InvalidInput(
            f"there is no {port} driver '{printable(name)}'; {_there_are(extensions, port)}", f"drivers.{port}"
        )
    return name


def several(extensions: Sequence[Extension], port: Port, names: Sequence[str] | None) -> tuple[str, ...]:
    """As `chosen`, of a list; raises `InvalidInput` for a name that is in it twice, too."""
    found = tuple(chosen(extensions, port, name) for name in names) if names else (chosen(extensions, port, None),)
    for name in found:
        if found.count(name) > 1:
            raise InvalidInput(f"'{printable(name)}' is named twice; name each driver once", f"drivers.{port}")
    return found


def groups(extensions: Iterable[Extension]) -> Iterator[Group]:
    """All their sections."""
    for extension in extensions:
        yield from extension.groups


def _there_are(extensions: Iterable[Extension], port: Port) -> str:
    known = names(extensions, port)
    if not known:
        return f"none is installed: {_INSTALL_AGAIN}"
    return f"there are: {', '.join(known)}"


def _loaded(point: EntryPoint) -> Extension:
    try:
        extension = point.load()()
    except Exception as error:  # noqa: BLE001  # whatever a foreign package does when it is loaded
        why = printable(f"{type(error).__name__}: {error}")
        ours = point.module.partition(".")[0] == __name__.partition(".")[0]
        mend = _INSTALL_AGAIN if ours and isinstance(error, ModuleNotFoundError) else "mend it or uninstall it"
        raise InvalidInput(f"The {_told(point)} cannot be loaded: {why}; {mend}.") from None
    if not isinstance(extension, Extension):
        raise InvalidInput(f"The {_told(point)} is no platform: '{point.value}' has to name a subclass of Platform.")
    return extension


def _told(point: EntryPoint) -> str:
    distribution = point.dist.name if point.dist is not None else "an unknown package"
    return f"driver package '{printable(point.name)}' of {printable(distribution)}"
