"""What of an instance is in no copy of its snapshot: told with it, and once more before it is put back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from stillframe.domain.instance import Instance

VOLUME: Final = "volume"
_LOCAL: Final = "It is a disk of the host that the instance runs on, not a volume, and stays as it is."
_LEFT_OUT: Final = "The request for the snapshot did not name it."
_SINCE: Final = "It was attached after the snapshot was taken, and stays as it is."


@dataclass(frozen=True, slots=True)
class Omission:
    """One thing; `kind` is `volume` or what the platform calls a disk of its own, and `why` one sentence."""

    kind: str
    volume_id: str | None
    why: str


def at_the_cut(instance: Instance, volume_ids: Collection[str]) -> tuple[Omission, ...]:
    """What a snapshot of these volumes does not hold of the instance as it is now."""
    left_out = (one for one in instance.volume_ids if one not in volume_ids)
    return (*_local(instance), *(Omission(VOLUME, one, _LEFT_OUT) for one in left_out))


def at_a_restore(
    instance: Instance, volume_ids: Collection[str], told: Sequence[Omission] | None
) -> tuple[Omission, ...]:
    """What stays as it is when these volumes are put back; `told` was missing at the cut, where that is known."""
    before = {one.volume_id: one for one in told or ()}
    others = (one for one in instance.volume_ids if one not in volume_ids)
    return (*_local(instance), *(before.get(one, Omission(VOLUME, one, _SINCE)) for one in others))


def _local(instance: Instance) -> tuple[Omission, ...]:
    return tuple(Omission(kind, None, _LOCAL) for kind in instance.local_disks)


def as_data(omissions: Sequence[Omission] | None) -> list[list[str | None]] | None:
    """As the store and the records of flows keep them."""
    return None if omissions is None else [[one.kind, one.volume_id, one.why] for one in omissions]


def from_data(value: Any) -> tuple[Omission, ...] | None:
    return None if value is None else tuple(Omission(kind, volume_id, why) for kind, volume_id, why in value)
