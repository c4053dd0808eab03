"""What an operation is asked for, and how that is kept in the store: written and read here and nowhere else.

Workers of two releases read the same rows for a while, so a key keeps its name and its meaning, and nobody requires one
that the release before does not write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Literal, TypeAlias, assert_never

from stillframe.domain import omission
from stillframe.domain.omission import Omission
from stillframe.domain.snapshot import ConsistencyLevel


class Action(StrEnum):
    """What an operation does, in the words of `get_progress`."""

    SNAPSHOT = "snapshot"
    DELETE = "delete"
    RESTORE = "restore"
    RETRY = "restore-retry"
    ROLLBACK = "restore-rollback"


#: Each of these puts volumes back to copies.
RestoreAction: TypeAlias = Literal[Action.RESTORE, Action.RETRY, Action.ROLLBACK]


@dataclass(frozen=True, slots=True)
class CreateArguments:
    """Cut these volumes at one instant; of a cut that is worth less than the minimum nothing is kept."""

    action: ClassVar = Action.SNAPSHOT
    volume_ids: tuple[str, ...]
    minimum: ConsistencyLevel = ConsistencyLevel.NONE


@dataclass(frozen=True, slots=True)
class DeleteArguments:
    """Delete the instance snapshot with everything that carries its id."""

    action: ClassVar = Action.DELETE


@dataclass(frozen=True, slots=True)
class RestoreArguments:
    """Put volumes back; `copies` is the copy for each, by volume id.

    `force` has an instance that runs shut down, and started again. `safety_copies`: every volume is copied first, so
    that the present can be rolled back to. The rest is what was told when the request was accepted, and None where a
    release did not tell it: how each volume is put back, in a word of its driver's, and what stays as it is.
    """

    action: RestoreAction
    copies: Mapping[str, str]
    force: bool
    safety_copies: bool
    plan: Mapping[str, str] | None = None
    omissions: tuple[Omission, ...] | None = None


@dataclass(frozen=True, slots=True)
class UnreadableArguments:
    """What another release has left and nobody here can read: such an operation is there, but cannot be worked on."""

    action: Action


Arguments: TypeAlias = CreateArguments | DeleteArguments | RestoreArguments | UnreadableArguments


def to_data(arguments: Arguments) -> dict[str, Any]:
    """As the store keeps them."""
    match arguments:
        case CreateArguments():
            return {"volumes": list(arguments.volume_ids), "minimum_consistency": arguments.minimum.value}
        case RestoreArguments():
            return {
                "copies": dict(arguments.copies),
                "force": arguments.force,
                "safety_copies": arguments.safety_copies,
                "plan": None if arguments.plan is None else dict(arguments.plan),
                "omissions": omission.as_data(arguments.omissions),
            }
        case DeleteArguments() | UnreadableArguments():
            return {}
        case _:
            assert_never(arguments)


def from_data(action: Action, data: Any) -> Arguments:
    """The arguments of an action as this release or one before has written them.

    What cannot be read is no error here: it must not keep anybody from the operations beside it.
    """
    try:
        return _read(action, data)
    except (AttributeError, KeyError, TypeError, ValueError):
        return UnreadableArguments(action)


def _read(action: Action, data: Any) -> Arguments:
    match action:
        case Action.SNAPSHOT:
            # The first release knows no minimum.
            minimum = ConsistencyLevel(data.get("minimum_consistency", ConsistencyLevel.NONE))
            return CreateArguments(tuple(data["volumes"]), minimum)
        case Action.DELETE:
            return DeleteArguments()
        case Action.RESTORE | Action.RETRY | Action.ROLLBACK:
            # Neither does it tell how, nor its successor what stays as it is.
            return RestoreArguments(
                action,
                dict(data["copies"]),
                _flag(data["force"]),
                _flag(data["safety_copies"]),
                data.get("plan"),
                omission.from_data(data.get("omissions")),
            )
        case _:
            assert_never(action)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("neither true nor false")
    return value
