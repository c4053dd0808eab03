"""What an array answers with, as far as the driver looks at it."""

from __future__ import annotations

from collections.abc import Mapping as Row
from dataclasses import dataclass
from typing import Any, Final

_ACTIVE: Final = frozenset({"copying", "stopping", "suspended"})
WHOLE: Final = 100


@dataclass(frozen=True, slots=True)
class Vdisk:
    """A volume of the array; `size` in bytes, `pool` the one of its primary copy."""

    name: str
    size: int
    pool: str
    iogrp: str
    online: bool
    remote_copy: str
    write_protected: bool


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


def vdisk(answer: Any) -> Vdisk:
    """A vdisk from its detailed view with sizes in bytes: one object, or a list of it and its mirrored copies."""
    parts: list[Row[str, str]] = answer if isinstance(answer, list) else [answer]
    whole = parts[0]
    pool = whole.get("mdisk_grp_name", "")
    if pool in ("", "many"):
        primary = next((part for part in parts if part.get("primary") == "yes"), whole)
        pool = primary.get("mdisk_grp_name", pool)
    return Vdisk(
        name=whole["name"],
        size=int(whole["capacity"]),
        pool=pool,
        iogrp=whole.get("IO_group_id", "0"),
        online=whole.get("status") == "online",
        remote_copy=whole.get("RC_name", ""),
        write_protected=whole.get("write_protected") == "yes",
    )


def mapping(row: Row[str, str]) -> Mapping:
    """A mapping from either of its views."""
    return Mapping(
        id=row["id"],
        name=row["name"],
        source=row["source_vdisk_name"],
        target=row["target_vdisk_name"],
        group=row.get("group_name", ""),
        status=row["status"],
        progress=int(row.get("progress") or 0),
        rc_controlled=row.get("rc_controlled") == "yes",
    )
