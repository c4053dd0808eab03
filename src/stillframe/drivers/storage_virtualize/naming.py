"""Names of what the driver makes on an array. They are the only record of a copy, and say all there is to say of it.

A name there has at most 63 characters and an array keeps no notes, so the ids of a copy are spread over two names: that
of the target vdisk, and that of the mapping to it. An id takes 22 characters of RFC 4648's base64url alphabet, all of
which are allowed in names.
"""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from dataclasses import dataclass
from typing import Final

from stillframe.domain.errors import Refused
from stillframe.domain.snapshot import CopyKind, CopyName

#: The letters that stand for the kinds of copies.
LETTERS: Final = {CopyKind.SNAPSHOT: "s", CopyKind.SAFETY: "t"}
KINDS: Final = {letter: kind for kind, letter in LETTERS.items()}
_ID: Final = "[A-Za-z0-9_-]{22}"
_TARGET: Final = re.compile(rf"sf([st])-({_ID})({_ID})-([A-Za-z0-9_-]{{14}})")
_FORWARD: Final = re.compile(rf"sf([st])-({_ID})-({_ID})")
_DIGEST: Final = 14

#: What begins the name of every reverse mapping of ours.
REVERSE: Final = "sfr-"

#: The volume of a copy without the mapping that would name it, where no volume that still exists fits.
UNKNOWN_VOLUME: Final = str(uuid.UUID(int=0))


@dataclass(frozen=True, slots=True)
class Target:
    """What the name of a target vdisk says; `digest` begins the copy's id as the mapping's name has it."""

    kind: CopyKind
    snapshot_id: str
    operation_id: str
    digest: str

    @property
    def group(self) -> str:
        """The name of the consistency group that the copy was cut in."""
        return group(self.kind, self.snapshot_id, self.operation_id)

    def copy_name(self, volume_id: str) -> CopyName:
        """The whole name of the copy, if it is of this volume."""
        return CopyName(self.kind, self.snapshot_id, volume_id, self.operation_id)

    def is_of(self, volume_id: str) -> bool:
        """Whether the copy is of this volume; its digest depends on that."""
        return digest(self.copy_name(volume_id).uuid) == self.digest

    @property
    def half_id(self) -> str:
        """An id for a copy whose volume is not known; it leads back to the same vdisk."""
        return read(self.digest + "A" * 8)


def target(name: CopyName) -> str:
    """The name of a copy's vdisk, 63 characters."""
    return f"sf{LETTERS[name.kind]}-{write(name.snapshot_id)}{write(name.operation_id)}-{digest(name.uuid)}"


def forward(name: CopyName) -> str:
    """The name of the mapping from a volume to its copy."""
    return f"sf{LETTERS[name.kind]}-{write(name.volume_id)}-{write(name.uuid)}"


def reverse(volume_id: str, copy_id: str) -> str:
    """The name of the mapping from a copy back to its volume."""
    return f"{REVERSE}{write(volume_id)}-{write(copy_id)}"


def group(kind: CopyKind, snapshot_id: str, operation_id: str) -> str:
    """The name of a consistency group: 14 letters and digits, for IBM's documentation allows 15."""
    return "sf" + hashlib.sha256(f"{kind}/{snapshot_id}/{operation_id}".encode()).hexdigest()[:12]


def group_of(name: CopyName) -> str:
    """The name of the consistency group that a copy is cut in."""
    return group(name.kind, name.snapshot_id, name.operation_id)


def volume_of(forward_name: str) -> str | None:
    """The volume that the name of a mapping to a copy tells, or None for another mapping's name."""
    found = _FORWARD.fullmatch(forward_name)
    return read(found[2]) if found else None


def end_of_forward(volume_id: str, copy_id: str) -> str:
    """What the name of the mapping from a volume to a copy ends with, whichever kind the copy is of."""
    return f"{write(volume_id)}-{write(copy_id)}"


def end_of(forward_name: str) -> str:
    """The end of the name of a mapping to a copy; see `end_of_forward`. Nothing for another mapping's name."""
    return forward_name[4:] if _FORWARD.fullmatch(forward_name) else ""


def beside(target_name: str) -> str:
    """What the names of the vdisks look like that were made for the same cut, with `*` at the end."""
    return f"{target_name[:-_DIGEST]}*"


def digest(copy_id: str) -> str:
    """The end of the name of a copy's vdisk."""
    return write(copy_id)[:_DIGEST]


def read_target(name: str) -> Target | None:
    """What a vdisk's name says, or None for one that is not ours."""
    found = _TARGET.fullmatch(name)
    if found is None:
        return None
    return Target(KINDS[found[1]], read(found[2]), read(found[3]), found[4])


def patterns(prefix: str, snapshot_id: str | None) -> list[str]:
    """What names look like that begin with the id of an instance snapshot (None: any), with `*` at their end."""
    if snapshot_id is None:
        return [f"{prefix}{letter}-*" for letter in KINDS]
    # Nothing can have been made for something else than a UUID.
    return [f"{prefix}{letter}-{write(snapshot_id)}*" for letter in KINDS] if is_id(snapshot_id) else []


def is_id(text: str) -> bool:
    """Whether something can be a copy's id."""
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def write(text: str) -> str:
    """An id as it stands in names, 22 characters; raises `Refused` for anything but a UUID."""
    try:
        number = uuid.UUID(text)
    except ValueError:
        raise Refused(
            f"'{text}' is not a UUID, and copies on an array are named by UUIDs only; give the volume one."
        ) from None
    return base64.urlsafe_b64encode(number.bytes)[:22].decode()


def read(text: str) -> str:
    """The id that 22 characters of a name stand for."""
    return str(uuid.UUID(bytes=base64.urlsafe_b64decode(f"{text}==")))
