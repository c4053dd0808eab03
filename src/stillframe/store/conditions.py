"""Conditions on the rows of operations that more than one query asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from stillframe.domain.operation import OperationState
from stillframe.store.first_release import without_claim
from stillframe.store.tables import OPERATIONS

if TYPE_CHECKING:
    from datetime import datetime

    from stillframe.domain.operation import Operation

_OPEN: Final = tuple(state.value for state in OperationState if not state.final)


def is_open() -> sa.ColumnElement[bool]:
    """Not final."""
    return OPERATIONS.c.state.in_(_OPEN)


def is_latest(operation: Operation) -> sa.ColumnElement[bool]:
    """This operation, and not claimed by anybody since."""
    return sa.and_(OPERATIONS.c.id == operation.id, OPERATIONS.c.generation == operation.generation)


def is_mine(operation: Operation) -> sa.ColumnElement[bool]:
    """What the worker of an operation's claim may still change."""
    return sa.and_(is_latest(operation), is_open())


def unclaimed(now: datetime) -> sa.ColumnElement[bool]:
    """Nobody's at a time of the database's clock: no claim holds.

    What runs and was never claimed is not nobody's: a worker took it up that knows no claims.
    """
    given_back = sa.and_(OPERATIONS.c.claimed_until.is_(None), sa.not_(without_claim()))
    return sa.or_(given_back, OPERATIONS.c.claimed_until <= now)
