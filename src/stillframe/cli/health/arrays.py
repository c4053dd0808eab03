"""The arrays of the settings, and the volumes that are declared to lie on them."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from stillframe.cli.health.finding import Finding, fail, ok
from stillframe.domain.errors import StillframeError
from stillframe.drivers.storage_virtualize.client import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stillframe.main import Drivers
    from stillframe.settings import Settings


def look(settings: Settings) -> Iterator[Finding]:
    """Whether each array answers, and to whom."""
    for options in settings.storage_virtualize.arrays:
        try:
            with closing(Client(options)) as client:
                system = client.run("lssystem")
        except StillframeError as error:
            mend = f"see that it answers, and correct [array:{options.name}]"
            yield fail(f"array {options.name}", error.message, mend)
        else:
            yield ok(f"array {options.name}", f"{system['name']} at code level {system['code_level']}")


def volumes(drivers: Drivers) -> Iterator[Finding]:
    """Declared volumes that no array has."""
    try:
        missing = [volume for volume in drivers.storage.list_volumes(None) if volume.status == "error"]
    except StillframeError as error:
        yield fail("volumes", error.message, "see that the platform behind answers")
        return
    for volume in missing:
        yield fail(f"volume {volume.name}", "no array has its vdisk", "correct the declaration, or put the vdisk back")
