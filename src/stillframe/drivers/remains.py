"""The port to drivers that keep notes or drafts of their own, which a step that was interrupted can leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Loss:
    """A complete copy that cannot be restored from any more, and why, in words for an operator."""

    copy_id: str
    snapshot_id: str
    why: str


class Remains(Protocol):
    """What a driver left behind that no other port shows. May raise `Unavailable` and `BackendError`."""

    def quiesced(self) -> Sequence[str]:
        """The instances whose guest may be held still by us; those that a process holds that lives only if need be."""
        ...

    def let_run(self, instance_id: str) -> None:
        """Let such a guest go; nothing happens to any other.

        Raises `Conflict` where a process holds it that lives, and `GuestHeld` as long as nobody has seen it free. May
        be called at any time, by several processes, and while operations begin.
        """
        ...

    def scraps(self, before: datetime) -> Sequence[str]:
        """Drafts that hold nothing, and were not touched after `before`, UTC without a zone."""
        ...

    def remove(self, scrap: str, before: datetime) -> None:
        """Remove one of those; nothing happens to what is gone already, holds something by now, or was touched."""
        ...

    def losses(self) -> Sequence[Loss]:
        """The complete copies whose data are gone, damaged or out of reach."""
        ...

    def orphans(self) -> Sequence[str]:
        """What lies where copies lie and is in no record: another service's, or what a lost record told of."""
        ...
