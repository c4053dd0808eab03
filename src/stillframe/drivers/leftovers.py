"""The port to leftovers that only a driver knows of: its notes and drafts, which an interrupted step can leave."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Loss:
    """A complete copy that cannot be restored from any more, and why, in words for an operator."""

    copy_id: str
    snapshot_id: str
    why: str


@dataclass(frozen=True, slots=True)
class FoundDraft:
    """A draft that nobody needs, unless somebody has just made it, as it was found.

    `state` is another one after each touch, of whatever the platform notes of it; it is compared and never understood,
    for its times are of another clock than ours. None where it is certain as it is that its maker is gone.
    """

    id: str
    state: str | None


class DriverLeftovers(ABC):
    """What a driver left behind that no other port shows. May raise `Unavailable` and `BackendError`."""

    @abstractmethod
    def quiesced(self) -> Sequence[str]:
        """The instances whose guest may be held still by us; those that a process holds that lives only if need be."""
        ...

    @abstractmethod
    def let_run(self, instance_id: str, require_free: Callable[[], None]) -> None:
        """Let such a guest go; nothing happens to any other, nor to what holds this one later.

        `require_free` raises `Conflict` where an operation is on the instance. It is called once it is certain which
        hold is to end: that of an operation which begins after that call is another.
        Raises `Conflict` also where a process holds it that lives, and `GuestHeld` as long as nobody has seen it free.
        May be called at any time, by several processes, and while operations begin.
        """
        ...

    @abstractmethod
    def drafts(self) -> Sequence[FoundDraft]:
        """Drafts that nobody holds, whenever they were made."""
        ...

    @abstractmethod
    def remove(self, draft: FoundDraft) -> None:
        """Remove one of those; nothing happens to what is gone already, or was touched."""
        ...

    @abstractmethod
    def losses(self) -> Sequence[Loss]:
        """The complete copies whose data are gone, damaged or out of reach."""
        ...

    @abstractmethod
    def orphans(self) -> Sequence[str]:
        """What lies where copies lie and is in no record: another service's, or what a lost record told of."""
        ...

    def place(self, copy_id: str) -> str | None:  # noqa: ARG002 -- most copies lie in no place of their own
        """Where a copy lies, for an operator who looks for it; None where its id says as much."""
        return None


class Together(DriverLeftovers):
    """See `DriverLeftovers`: those of several platforms."""

    def __init__(self, parts: Sequence[DriverLeftovers]) -> None:
        self._parts = parts

    def quiesced(self) -> Sequence[str]:
        return [one for part in self._parts for one in part.quiesced()]

    def let_run(self, instance_id: str, require_free: Callable[[], None]) -> None:
        for part in self._parts:
            part.let_run(instance_id, require_free)

    def drafts(self) -> Sequence[FoundDraft]:
        return [one for part in self._parts for one in part.drafts()]

    def remove(self, draft: FoundDraft) -> None:
        for part in self._parts:
            if draft in part.drafts():
                part.remove(draft)

    def losses(self) -> Sequence[Loss]:
        return [one for part in self._parts for one in part.losses()]

    def orphans(self) -> Sequence[str]:
        return [one for part in self._parts for one in part.orphans()]

    def place(self, copy_id: str) -> str | None:
        return next((place for part in self._parts if (place := part.place(copy_id)) is not None), None)


def together(parts: Sequence[DriverLeftovers]) -> DriverLeftovers | None:
    """Those of several platforms as those of one; None where there are none."""
    return parts[0] if len(parts) == 1 else Together(parts) if parts else None
