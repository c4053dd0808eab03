"""The arrays of the settings, and the volumes that are declared to lie on them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Final

from stillframe.domain.errors import StillframeError
from stillframe.drivers.finding import Finding, fail, ok, warn
from stillframe.drivers.storage_virtualize import objects
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.client import Client

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stillframe.drivers.storage import StorageDriver
    from stillframe.drivers.storage_virtualize.options import ArrayOptions

_SECONDS: Final = 10.0


def look(arrays: Sequence[ArrayOptions]) -> Iterator[Finding]:
    """Whether each array answers, and to whom; all are asked at a time."""
    if arrays:
        with ThreadPoolExecutor(len(arrays)) as pool:
            yield from pool.map(_look, arrays)


def _look(options: ArrayOptions) -> Finding:
    try:
        with closing(Client(options)) as client:
            system = Array(client, _SECONDS).ask(objects.system, "lssystem")
    except StillframeError as error:
        return fail(f"array {options.name}", error.message, f"see that it answers, and correct [array:{options.name}]")
    return ok(f"array {options.name}", system)


def volumes(storage: StorageDriver) -> Iterator[Finding]:
    """Declared volumes that no array has, or of which nobody knows."""
    try:
        found = storage.list_volumes(None)
    except StillframeError as error:
        yield fail("volumes", error.message, "see that the platform behind answers")
        return
    for volume in found:
        what = f"volume {volume.name}"
        if volume.status == "error":
            yield fail(what, "no array has its vdisk", "correct which vdisk is attached, or put it back")
        elif volume.status == "unknown":
            yield warn(what, "it is not known whether its array has its vdisk", "see that the array answers")
