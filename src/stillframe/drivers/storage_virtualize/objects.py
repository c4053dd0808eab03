"""What an array answers with, as far as the driver looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import AfterValidator, FailFast, Field, TypeAdapter
from typing_extensions import TypedDict

from stillframe.foreign.replies import Malformed, plain, shaped

_ACTIVE: Final = frozenset({"copying", "stopping", "suspended"})
WHOLE: Final = 100


@dataclass(frozen=True, slots=True)
class Vdisk:
    """A volume of the array; `size` in bytes, `pool` is "many" for one whose copies are in several."""

    name: str
    size: int
    pool: str
    iogrp: str
    online: bool
    remote_copy: str
    volume_group: str = ""
    replication: str = ""


@dataclass(frozen=True, slots=True)
class Mapping:
    """A FlashCopy mapping; `source` and `target` are names of vdisks, `progress` per cent, `group` "" for none."""

    id: str
    name: str
    source: str
    target: str
    group: str
    status: str
    progress: int
    rc_controlled: bool

    @property
    def active(self) -> bool:
        return self.status in _ACTIVE

    @property
    def started(self) -> bool:
        """Whether it has ever been started, as far as its state tells."""
        return self.active or self.status == "stopped" or self.progress > 0

    @property
    def whole(self) -> bool:
        """Whether its target needs its source no more."""
        return self.progress == WHOLE

    @property
    def usable(self) -> bool:
        """Whether its target reads as the source did at its start."""
        return self.status == "copying" or (self.status == "idle_or_copied" and self.whole)


def primary_pool(answer: Any) -> str:
    """The pool of a mirrored vdisk's primary copy, from the detailed view: a list of the vdisk and its copies.

    Raises `Malformed`, as all of these.
    """
    parts = shaped(_PARTS, answer if isinstance(answer, list) else [answer])
    primary = next((part for part in parts if part.get("primary") == "yes"), parts[0])
    return primary.get("mdisk_grp_name", "")


def vdisks(answer: Any) -> list[Vdisk]:
    """Vdisks from their list with sizes in bytes."""
    return [
        Vdisk(
            name=row["name"],
            size=row["capacity"],
            pool=row.get("mdisk_grp_name", ""),
            iogrp=row.get("IO_group_id", "0"),
            online=row.get("status") == "online",
            remote_copy=row.get("RC_name", ""),
            volume_group=row.get("volume_group_name", ""),
            replication=row.get("replication_mode", ""),
        )
        for row in shaped(_VDISKS, answer)
    ]


def mappings(answer: Any) -> list[Mapping]:
    """Mappings from their list."""
    return [
        Mapping(
            id=row["id"],
            name=row["name"],
            source=row["source_vdisk_name"],
            target=row["target_vdisk_name"],
            group=row.get("group_name", ""),
            status=row["status"],
            progress=row.get("progress") or 0,
            rc_controlled=row.get("rc_controlled") == "yes",
        )
        for row in shaped(_MAPPINGS, answer)
    ]


def statuses(answer: Any) -> list[str]:
    """The statuses of consistency groups from their list."""
    return [row["status"] for row in shaped(_GROUPS, answer)]


def rows(answer: Any) -> list[Columns]:
    """Mappings from their list, with all columns that the array has; ids are numbers."""
    shaped(_NUMBERED, answer)
    return shaped(_ROWS, answer)


def columns(answer: Any) -> Columns:
    """One mapping from its detailed view, with all columns that the array has."""
    shaped(_MAPPINGS, [answer])
    return shaped(_ROW, answer)


def system(answer: Any) -> str:
    """What a system tells of itself, for people."""
    told = shaped(_SYSTEM, answer)
    return f"{told.get('name', 'without a name')} at code level {told['code_level']}"


def code_level(answer: Any) -> tuple[int, ...]:
    """The code level in what a system tells of itself, as numbers, such as (8, 6, 2, 0)."""
    told = shaped(_SYSTEM, answer)["code_level"]
    return tuple(int(part) for part in told.partition(" ")[0].split(".") if part.isdecimal())


def role(answer: Any) -> str:
    """The role of whoever asks, which an array tells by the row or in one."""
    rows = answer if isinstance(answer, list) else [answer]
    told = [shaped(_ROLE, row)["role"] for row in rows if isinstance(row, dict) and "role" in row]
    if len(told) != 1:
        raise Malformed("the answer tells of no role")
    return told[0]


def members(answer: Any) -> list[SnapshotMember]:
    """The volumes that are in snapshots of the array, from their list."""
    return shaped(_MEMBERS, answer)


def replication_policies(answer: Any) -> list[str]:
    """The replication policies of a volume group, from its detailed view: for recovery, and for high availability."""
    told = shaped(_VOLUME_GROUP, answer)
    return [name for name in (told.get("replication_policy_name"), told.get("ha_replication_policy_name")) if name]


def made(answer: Any) -> str:
    """The id of what a command has made."""
    return shaped(_MADE, answer)["id"]


def nothing(answer: Any) -> None:
    """What an array answers to a command that makes nothing; raises `Malformed` for anything else."""
    if answer:
        raise Malformed("the answer has something in it, and this command has nothing to say")


def _printable(text: str) -> str:
    return text if text.isprintable() and len(text) < _LONGEST else plain(text)


_LONGEST: Final = 256
_Word = Annotated[str, AfterValidator(_printable)]
_Bytes = Annotated[int, Field(ge=0, lt=1 << 63)]
_Number = Annotated[int, Field(ge=0, lt=1 << 31)]
_Percent = Annotated[int, Field(ge=0, le=WHOLE)]

#: Columns as the array names them; it has no others than words.
Columns = dict[_Word, _Word | None]


class _Size(TypedDict):
    name: _Word
    capacity: _Bytes


class _Part(TypedDict, total=False):
    primary: _Word
    mdisk_grp_name: _Word


class _Whole(_Size, total=False):
    mdisk_grp_name: _Word
    IO_group_id: _Word
    status: _Word
    RC_name: _Word
    volume_group_name: _Word
    replication_mode: _Word


class _Row(TypedDict):
    id: _Word
    name: _Word
    source_vdisk_name: _Word
    target_vdisk_name: _Word
    group_name: NotRequired[_Word]
    status: _Word
    progress: NotRequired[_Percent | Literal[""] | None]
    rc_controlled: NotRequired[_Word]


class _NumberedRow(_Row):
    id: _Number  # type: ignore[misc]  # narrower than what only names a mapping


class _Group(TypedDict):
    status: _Word


class _VolumeGroup(TypedDict):
    name: _Word
    replication_policy_name: NotRequired[_Word]
    ha_replication_policy_name: NotRequired[_Word]


class _Made(TypedDict):
    id: _Word


class _System(TypedDict):
    name: NotRequired[_Word]
    code_level: Annotated[_Word, Field(pattern=r"^\d{1,5}(\.\d{1,5})*( |$)")]


class _Role(TypedDict):
    role: _Word


class SnapshotMember(TypedDict):
    """One volume in a snapshot of the array's; `volume_size` in bytes, where the code level tells it."""

    snapshot_id: _Word
    snapshot_name: _Word
    parent_uid: _Word
    state: _Word
    volume_id: _Number
    volume_name: _Word
    volume_size: NotRequired[_Bytes | Literal[""] | None]


_PARTS: Final = TypeAdapter(Annotated[list[_Part], FailFast(), Field(min_length=1)])
_VDISKS: Final = TypeAdapter(Annotated[list[_Whole], FailFast()])
_MAPPINGS: Final = TypeAdapter(Annotated[list[_Row], FailFast()])
_NUMBERED: Final = TypeAdapter(Annotated[list[_NumberedRow], FailFast()])
_GROUPS: Final = TypeAdapter(Annotated[list[_Group], FailFast()])
_VOLUME_GROUP: Final = TypeAdapter(_VolumeGroup)
_MADE: Final = TypeAdapter(_Made)
_ROWS: Final = TypeAdapter(Annotated[list[Columns], FailFast()])
_ROW: Final = TypeAdapter(Columns)
_SYSTEM: Final = TypeAdapter(_System)
_ROLE: Final = TypeAdapter(_Role)
_MEMBERS: Final = TypeAdapter(Annotated[list[SnapshotMember], FailFast()])
