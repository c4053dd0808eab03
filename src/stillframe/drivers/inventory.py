"""The port to platforms that have it on record which volumes each instance has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from stillframe.domain.instance import Attachment


@dataclass(frozen=True, slots=True)
class Attached:
    """A volume, and the instance that has it."""

    instance_id: str
    instance_name: str
    project_id: str
    attachment: Attachment


class Inventory(ABC):
    """For storage drivers whose volumes are listed nowhere but with their instances."""

    @abstractmethod
    def attached(self) -> Sequence[Attached]:
        """Every volume of every instance; no instance is looked at for that, so that it is quick."""
        ...
