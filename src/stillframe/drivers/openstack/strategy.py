"""How a volume is put back to a snapshot: chosen from what is known about both, without asking anybody."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from stillframe.domain.errors import NotSupported


class Strategy(StrEnum):
    """The ways, the best first.

    `EXTENSION`: our extension of Cinder's API reverts to any snapshot, straight from in-use. `REVERT`: Cinder's own
    revert, to the newest snapshot of a project, while the volume's status says available. `REIMAGE`: Cinder copies the
    snapshot over the volume, likewise; older snapshots can be restored, newer ones survive, all data are written.
    """

    EXTENSION = "extension"
    REVERT = "revert"
    REIMAGE = "reimage"


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the choice depends on.

    `newest`: no later snapshot is in the way of Cinder's own revert. `reverts`: the back end's driver reverts by itself
    and at once. `sparse`: where Cinder copies in its place, blocks stay as they are where the snapshot has zeroes, so
    that stale data would show. `reimage`: the operator allows it.
    """

    extension: bool
    newest: bool
    reverts: bool
    encrypted: bool
    sparse: bool
    reimage: bool


def choose(volume_id: str, known: Circumstances) -> Strategy:
    """The way for one volume; raises `NotSupported` that says what is in it and what would open one."""
    if known.reverts and known.extension:
        return Strategy.EXTENSION
    if known.reverts and known.newest:
        return Strategy.REVERT
    obstacle = _obstacle(known)
    if obstacle is None:
        return Strategy.REIMAGE
    if known.reverts:
        raise NotSupported(
            f"Volume {volume_id} has newer snapshots, which Cinder's own revert does not pass over, and {obstacle}. "
            "Have the operator install stillframe's extension of Cinder's API, or delete the newer snapshots."
        )
    raise NotSupported(
        f"The back end of volume {volume_id} does not revert by itself, and {obstacle}. Make new volumes "
        "from its snapshots instead."
    )


def _obstacle(known: Circumstances) -> str | None:
    if not known.reimage:
        return "copying the snapshot over it is switched off in the settings"
    if known.encrypted:
        return "it is encrypted, so that the snapshot cannot be copied over it"
    if known.sparse:
        return "it is copied sparsely, which would leave stale data in it"
    return None
