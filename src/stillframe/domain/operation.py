"""Operations: one accepted request that changes an instance or its snapshots, from acceptance to its final record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, StrEnum
from typing import Literal, TypeAlias

from stillframe.domain.arguments import Action, Arguments
from stillframe.domain.omission import Omission
from stillframe.domain.snapshot import Consistency, Fault
from stillframe.domain.status import Event


class OperationState(StrEnum):
    """`pending` and `running` have a worker that owns them or will; the other two are final."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        return self in (OperationState.SUCCEEDED, OperationState.FAILED)


@dataclass(frozen=True, slots=True)
class FlowRecord:
    """What is kept of a flow when its details go: its state by its name, and the states of its tasks by theirs."""

    flow_details: Mapping[str, str]
    completed_tasks: Mapping[str, str]
    pending_tasks: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation; its id is the `task_id` of its URI.

    `committed` is the point of no return: beyond it a failure is settled by retry or rollback, never by undoing.
    `progress` is 0..100 and never falls; `record` is kept when the flow's details go.
    `generation` numbers its claims: only the worker of the latest may change anything. `limit_keys` are what limits of
    concurrency count it by besides its project, such as `host:NAME` and `backend:NAME`. `fault` is why it failed, or
    what went wrong although it succeeded.
    """

    id: str
    arguments: Arguments
    snapshot_id: str
    project_id: str
    instance_id: str
    request_id: str
    state: OperationState
    created_at: datetime
    deadline: datetime
    attempts: int = 0
    progress: int = 0
    committed: bool = False
    finished_at: datetime | None = None
    record: FlowRecord | None = None
    generation: int = 0
    limit_keys: tuple[str, ...] = ()
    fault: Fault | None = None

    @property
    def action(self) -> Action:
        return self.arguments.action


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an operation is: 0..100, its flow's name and state, and the states of its tasks by name.

    `seconds_left`: how long it will still take at the pace it has had so far; None where nobody can tell. `plan`: how
    each volume is put back, by volume id and in a word of its driver's; None where none is. `omissions`: what of the
    instance stays as it is. `finished_at` is None until
    the end, and `fault` what went wrong.
    """

    percent: int
    flow_details: Mapping[str, str]
    completed_tasks: Mapping[str, str]
    pending_tasks: Mapping[str, str]
    seconds_left: int | None = None
    queue_position: int | None = None
    plan: Mapping[str, str] | None = None
    omissions: tuple[Omission, ...] | None = None
    finished_at: datetime | None = None
    fault: Fault | None = None


class Unchanged(Enum):
    """Said of a map that stays as it is; None would be said of one that goes."""

    UNCHANGED = "unchanged"


CopyMap: TypeAlias = Mapping[str, str] | Literal[Unchanged.UNCHANGED] | None


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an operation ended: the event for the status table, and what the row shows from then on.

    The maps of the row are `snapshots`, `temp_snapshots` and `failed_snapshots`. `untouched`, the volumes that are what
    their safety copies are, stay as they are where it is None. `unfence` takes the instance's fence away. `free` gives
    the instance back to other operations; it is False while a call that hangs may still change something.
    """

    event: Event
    succeeded: bool
    fault: Fault | None = None
    snapshots: CopyMap = Unchanged.UNCHANGED
    temp_snapshots: CopyMap = Unchanged.UNCHANGED
    failed_snapshots: CopyMap = Unchanged.UNCHANGED
    consistency: Consistency | None = None
    untouched: frozenset[str] | None = None
    unfence: bool = False
    free: bool = True

    def keeping_lock(self) -> Settlement:
        """The same, with the instance not given back yet."""
        return replace(self, free=False)
