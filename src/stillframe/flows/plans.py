"""Which flow does what was asked for."""

from __future__ import annotations

from typing import assert_never

from stillframe.domain.arguments import (
    Action,
    CreateArguments,
    DeleteArguments,
    RestoreArguments,
    UnreadableArguments,
)
from stillframe.domain.errors import StillframeError
from stillframe.engine.work import Attempt, Planner, Work
from stillframe.flows import create_snapshot, delete_snapshot, restore_instance, rollback_instance
from stillframe.flows.step import Ports


def planner(ports: Ports) -> Planner:
    """The planner that the engine asks for the work of an attempt.

    It raises `StillframeError` for arguments that are not to be read.
    """
    return lambda attempt: _plan(ports, attempt)


def _plan(ports: Ports, attempt: Attempt) -> Work:
    match asked := attempt.operation.arguments:
        case CreateArguments():
            return create_snapshot.plan(ports, attempt, asked)
        case DeleteArguments():
            return delete_snapshot.plan(ports, attempt)
        case RestoreArguments(action=Action.ROLLBACK):
            return rollback_instance.plan(ports, attempt, asked)
        case RestoreArguments():
            return restore_instance.plan(ports, attempt, asked)
        case UnreadableArguments():
            raise StillframeError(f"What task {attempt.operation.id} was asked for cannot be read by this release.")
        case _:
            assert_never(asked)
