"""The status table of an instance snapshot, and the one pure function that applies it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from stillframe.domain.errors import Conflict, Refused


class Status(StrEnum):
    """What an instance snapshot is doing or waiting for."""

    CREATING = "creating"
    AVAILABLE = "available"
    ERROR = "error"
    RESTORING = "restoring"
    RESTORE_ERROR = "restore-error"
    ROLLING_BACK = "rolling-back"
    ROLLBACK_ERROR = "rollback-error"
    DELETING = "deleting"
    ERROR_DELETING = "error-deleting"
    GONE = "gone"


class Event(StrEnum):
    """What happens to an instance snapshot: a request that was accepted, or the end of an operation."""

    CREATED = "created"
    CREATE_FAILED = "create-failed"
    RESTORE = "restore"
    RESTORED = "restored"
    RESTORE_UNDONE = "restore-undone"
    RESTORE_FAILED = "restore-failed"
    RETRY = "retry"
    ROLLBACK = "rollback"
    ROLLED_BACK = "rolled-back"
    ROLLBACK_FAILED = "rollback-failed"
    DELETE = "delete"
    DELETED = "deleted"
    DELETE_FAILED = "delete-failed"


TRANSITIONS: Final[dict[tuple[Status, Event], Status]] = {
    (Status.CREATING, Event.CREATED): Status.AVAILABLE,
    (Status.CREATING, Event.CREATE_FAILED): Status.ERROR,
    (Status.AVAILABLE, Event.RESTORE): Status.RESTORING,
    (Status.AVAILABLE, Event.DELETE): Status.DELETING,
    (Status.ERROR, Event.DELETE): Status.DELETING,
    (Status.RESTORING, Event.RESTORED): Status.AVAILABLE,
    # The restore failed before it touched a volume, and what it had prepared was undone.
    (Status.RESTORING, Event.RESTORE_UNDONE): Status.AVAILABLE,
    (Status.RESTORING, Event.RESTORE_FAILED): Status.RESTORE_ERROR,
    (Status.RESTORE_ERROR, Event.RETRY): Status.RESTORING,
    (Status.RESTORE_ERROR, Event.ROLLBACK): Status.ROLLING_BACK,
    (Status.RESTORE_ERROR, Event.DELETE): Status.DELETING,
    (Status.ROLLING_BACK, Event.ROLLED_BACK): Status.AVAILABLE,
    (Status.ROLLING_BACK, Event.ROLLBACK_FAILED): Status.ROLLBACK_ERROR,
    (Status.ROLLBACK_ERROR, Event.ROLLBACK): Status.ROLLING_BACK,
    (Status.ROLLBACK_ERROR, Event.DELETE): Status.DELETING,
    (Status.DELETING, Event.DELETED): Status.GONE,
    (Status.DELETING, Event.DELETE_FAILED): Status.ERROR_DELETING,
    (Status.ERROR_DELETING, Event.DELETE): Status.DELETING,
}

#: In these an operation has the instance snapshot; all others are stable.
BUSY: Final = frozenset({Status.CREATING, Status.RESTORING, Status.ROLLING_BACK, Status.DELETING})

_MEANINGS: Final[dict[Status, str]] = {
    Status.CREATING: "the volume snapshots are being made",
    Status.AVAILABLE: "complete; can be restored or deleted",
    Status.ERROR: "creation failed and what it had made was removed, or goes with its deletion; can only be deleted",
    Status.RESTORING: "volumes are being put back to this snapshot; the instance is fenced",
    Status.RESTORE_ERROR: "some volumes could not be restored; retry, roll back or delete; the instance stays fenced",
    Status.ROLLING_BACK: "volumes are being put back to their safety copies; the instance is fenced",
    Status.ROLLBACK_ERROR: (
        "some volumes could not be rolled back; roll back again or delete; the instance stays fenced"
    ),
    Status.DELETING: "the volume snapshots and leftover safety copies are being deleted",
    Status.ERROR_DELETING: "some volume snapshots could not be deleted; delete again",
    Status.GONE: "deleted; no longer listed",
}


def meaning(status: Status) -> str:
    """One clause that says what a status means to an operator."""
    return _MEANINGS[status]


def events_from(status: Status) -> frozenset[Event]:
    """The events a status has a way out by."""
    return frozenset(event for (start, event) in TRANSITIONS if start is status)


def advance(status: Status, event: Event) -> Status:
    """The status that follows; where the table has none, raises `Conflict` in a busy status and `Refused` in others."""
    try:
        return TRANSITIONS[status, event]
    except KeyError:
        if status in BUSY:
            raise busy(status) from None
        allowed = sorted(start.value for (start, known) in TRANSITIONS if known is event)
        raise Refused(
            f"Cannot {event.value} while the instance snapshot is in status '{status.value}'; "
            f"that is possible in: {', '.join(allowed)}."
        ) from None


def busy(status: Status) -> Conflict:
    """The refusal of any change while an operation has the instance snapshot."""
    return Conflict(
        f"The instance snapshot is in status '{status.value}': wait for the end of its operation and try again."
    )
