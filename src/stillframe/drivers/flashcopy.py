"""The port to storage whose copies are FlashCopy mappings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence


class FlashCopy(ABC):
    """The FlashCopy mappings of volumes on IBM Storage Virtualize; drivers of other back ends do not offer it."""

    @abstractmethod
    def mappings(self, volume_id: str, *, details: bool) -> Sequence[Mapping[str, str | None]]:
        """One entry per mapping the volume takes part in, by numeric mapping id.

        Raises `NotSupported` for a volume that is not on such an array, `NotFound`.
        """
        ...
