"""What a kill can leave of the local drivers that is neither disk nor copy: empty drafts, and notes of a pause."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from stillframe.drivers.local import copies
from stillframe.drivers.local.border import border
from stillframe.drivers.local.copies import Copies
from stillframe.drivers.local.declaration import Declarations
from stillframe.drivers.local.files import Files
from stillframe.drivers.local.holding import Holding

# A folder that is about to hold a copy, or that has held one; see `stillframe.drivers.local.copies`.
_PATTERNS: Final = ("*.partial.new", "*.deleting")


class LocalRemains:
    """See `Remains`; `instances` and `state` are the folders that the drivers have them in."""

    def __init__(self, instances: Path, state: Path, files: Files, holding: Holding) -> None:
        self._declarations = Declarations(instances)
        self._copies = Copies(files, self._declarations, state)
        self._holding = holding
        self._files = files

    def quiesced(self) -> Sequence[str]:
        """See `Remains`; who is not declared any more cannot be let run by us, and is left out."""
        return sorted(set(self._holding.abandoned()) & {declaration.id for declaration in self._declarations.all()})

    def let_run(self, instance_id: str) -> None:
        """See `Remains`."""
        self._holding.release_abandoned(self._declarations.instance(instance_id))

    def scraps(self, before: datetime) -> Sequence[str]:
        """See `Remains`: paths of folders without a copy's record, which is the first thing that a copy has."""
        with border("looking for empty folders"):
            return [
                str(folder)
                for root in self._copies.roots()
                for pattern in _PATTERNS
                for folder in sorted(root.glob(pattern))
                if _is_scrap(folder, before)
            ]

    def remove(self, scrap: str, before: datetime) -> None:
        """See `Remains`."""
        folder = Path(scrap)
        with border(f"removing {folder}"):
            if _is_scrap(folder, before):
                self._files.remove_folder(folder, copies.META)


def _is_scrap(folder: Path, before: datetime) -> bool:
    try:
        touched = datetime.fromtimestamp(folder.stat().st_mtime, UTC).replace(tzinfo=None)
    except FileNotFoundError:
        return False
    return folder.is_dir() and not copies.meta(folder).exists() and touched <= before
