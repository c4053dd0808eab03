"""What came of the tasks of a flow, as values, and how that is recorded: written and read here and nowhere else.

A flow may begin in one release and go on in the next or the one before, so a key keeps its name and its meaning, and
nobody requires one that the release before does not write. Where it did not come to an outcome, None is recorded.
`achieved` says whether what the task is called after was done: a failure that is data to the flow is one to the user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stillframe.domain import omission
from stillframe.domain.snapshot import Consistency, ConsistencyLevel


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something was not done, as an error of the tree says it."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class CutMade:
    """All volumes were cut: the copy of each, by volume id, those of them that are not ready, and what it is worth."""

    copies: Mapping[str, str]
    unready: tuple[str, ...]
    consistency: Consistency

    @property
    def achieved(self) -> bool:
        return True

    def to_data(self) -> dict[str, Any]:
        return {
            "copies": dict(self.copies),
            "unready": list(self.unready),
            "level": self.consistency.level.value,
            "reason": self.consistency.reason,
            "window_ms": self.consistency.cut_window_ms,
            "omissions": omission.as_data(self.consistency.omissions),
        }

    @classmethod
    def from_data(cls, data: Any) -> CutMade:
        consistency = Consistency(
            ConsistencyLevel(data["level"]),
            data["window_ms"],
            data.get("reason"),
            omission.from_data(data.get("omissions")),
        )
        # The first release records no more than which copies there are; to complete one again does no harm.
        return cls(data["copies"], tuple(data.get("unready", data["copies"].values())), consistency)


@dataclass(frozen=True, slots=True)
class CopiesDeleted:
    """Copies were deleted, all but these, by copy id."""

    left: Mapping[str, Reason]

    @property
    def achieved(self) -> bool:
        return not self.left

    def to_data(self) -> dict[str, Any]:
        return {copy_id: _reason_to_data(reason) for copy_id, reason in self.left.items()}

    @classmethod
    def from_data(cls, data: Any) -> CopiesDeleted:
        return cls({copy_id: Reason(reason["code"], reason["message"]) for copy_id, reason in data.items()})


@dataclass(frozen=True, slots=True)
class FenceDropped:
    """Whether the fence of a snapshot that goes was taken away."""

    achieved: bool

    def to_data(self) -> bool:
        return self.achieved

    @classmethod
    def from_data(cls, data: Any) -> FenceDropped:
        return cls(data is not False)


@dataclass(frozen=True, slots=True)
class SafetyCopiesMade:
    """Every volume was copied before it is put back; the copy of each, by volume id."""

    copies: Mapping[str, str]

    @property
    def achieved(self) -> bool:
        return True

    def to_data(self) -> dict[str, str]:
        return dict(self.copies)

    @classmethod
    def from_data(cls, data: Any) -> SafetyCopiesMade:
        return cls(data)


@dataclass(frozen=True, slots=True)
class VolumeRestored:
    """One volume was put back, or why it was not.

    Of one that failed: `held` is whether its instance was off and fenced when it was begun, and `touched` whether the
    volume may have been changed. An earlier release has recorded neither.
    """

    volume_id: str
    failed: Reason | None = None
    held: bool = True
    touched: bool = True

    @property
    def achieved(self) -> bool:
        return self.failed is None

    def to_data(self) -> dict[str, Any]:
        if self.failed is None:
            return {"ok": True, "volume_id": self.volume_id}
        return {
            "ok": False,
            "volume_id": self.volume_id,
            **_reason_to_data(self.failed),
            "held": self.held,
            "touched": self.touched,
        }

    @classmethod
    def from_data(cls, data: Any) -> VolumeRestored:
        if data["ok"]:
            return cls(data["volume_id"])
        reason = Reason(data["code"], data["message"])
        return cls(data["volume_id"], reason, data.get("held", False), data.get("touched", True))


@dataclass(frozen=True, slots=True)
class FenceConfirmed:
    """All volumes are put back, and the instance was still off and fenced then; or why that is not so."""

    lost: Reason | None = None

    @property
    def achieved(self) -> bool:
        return self.lost is None

    def to_data(self) -> dict[str, Any]:
        return {"held": True} if self.lost is None else {"held": False, **_reason_to_data(self.lost)}

    @classmethod
    def from_data(cls, data: Any) -> FenceConfirmed:
        return cls(None if data["held"] else Reason(data["code"], data["message"]))


@dataclass(frozen=True, slots=True)
class InstanceReleased:
    """The instance was given back as it was, or why not; `fenced`: nobody can start it yet."""

    fenced: bool = False
    failed: Reason | None = None

    @property
    def achieved(self) -> bool:
        return self.failed is None

    def to_data(self) -> dict[str, Any]:
        return {"fenced": self.fenced, **_reason_to_data(self.failed)}

    @classmethod
    def from_data(cls, data: Any) -> InstanceReleased:
        return cls(bool(data["fenced"]), _reason_from_data(data))


@dataclass(frozen=True, slots=True)
class SafetyCopiesDeleted:
    """The safety copies, which nobody needs any more, were deleted; or why not, and those that are left."""

    left: Mapping[str, str]
    failed: Reason | None = None

    @property
    def achieved(self) -> bool:
        return self.failed is None

    def to_data(self) -> dict[str, Any]:
        return {"leftovers": dict(self.left), **_reason_to_data(self.failed)}

    @classmethod
    def from_data(cls, data: Any) -> SafetyCopiesDeleted:
        return cls(data["leftovers"], _reason_from_data(data))


def _reason_to_data(reason: Reason | None) -> dict[str, str]:
    return {} if reason is None else {"code": reason.code, "message": reason.message}


def _reason_from_data(data: Any) -> Reason | None:
    return Reason(data["code"], data["message"]) if "code" in data else None
