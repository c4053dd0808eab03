"""Which flow does which action."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from stillframe.domain.operation import Action
from stillframe.engine.work import Attempt, Planner, Work
from stillframe.flows import create_snapshot, delete_snapshot, restore_instance, rollback_instance
from stillframe.flows.step import Ports

_PLANS: Final[Mapping[Action, Callable[[Ports, Attempt], Work]]] = {
    Action.SNAPSHOT: create_snapshot.plan,
    Action.DELETE: delete_snapshot.plan,
    Action.RESTORE: restore_instance.plan,
    Action.RETRY: restore_instance.plan,
    Action.ROLLBACK: rollback_instance.plan,
}


def planner(ports: Ports) -> Planner:
    """The planner that the engine asks for the work of an attempt."""
    return lambda attempt: _PLANS[attempt.operation.action](ports, attempt)
