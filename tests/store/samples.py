"""Snapshots and operations to put into a store, and the shortest ways to get them into a status."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from stillframe.domain.arguments import Action, Arguments, CreateArguments, DeleteArguments, RestoreArguments
from stillframe.domain.operation import Operation, OperationState, Settlement
from stillframe.domain.snapshot import Fault, InstanceSnapshot
from stillframe.domain.status import Event, Status

if TYPE_CHECKING:
    from stillframe.store.operations import OperationStore

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456)  # noqa: DTZ001  # the store's times are UTC without a zone
LATER = NOON + timedelta(minutes=5)
FAULT = Fault("backend-error", "the array said no: 磁盘 💥", NOON)


def new_id() -> str:
    return str(uuid.uuid4())


def sample_operation(**given: Any) -> Operation:
    values: dict[str, Any] = {
        "id": new_id(),
        "snapshot_id": new_id(),
        "project_id": "project",
        "instance_id": "instance",
        "request_id": f"req-{new_id()}",
        "state": OperationState.PENDING,
        "created_at": NOON,
        "deadline": NOON + timedelta(hours=1),
        "arguments": CreateArguments(("v1", "v2")),
    }
    return Operation(**values | given)


def sample_snapshot(operation: Operation, **given: Any) -> InstanceSnapshot:
    values: dict[str, Any] = {
        "id": operation.snapshot_id,
        "project_id": operation.project_id,
        "user_id": "user",
        "instance_id": operation.instance_id,
        "name": "before the upgrade",
        "description": "",
        "status": Status.CREATING,
        "created_at": operation.created_at,
        "task_id": operation.id,
        "action": operation.action.value,
    }
    return InstanceSnapshot(**values | given)


def creating(operations: OperationStore, **given: Any) -> Operation:
    """An instance snapshot that is being created, by its operation."""
    about_snapshot = {key: given.pop(key) for key in ("name", "description", "user_id") if key in given}
    operation = sample_operation(**given)
    operations.begin_create(sample_snapshot(operation, **about_snapshot), operation)
    return operation


def available(operations: OperationStore, **given: Any) -> Operation:
    """An instance snapshot that is available, by the operation that created it."""
    operation = creating(operations, **given)
    copies = {"v1": f"copy-of-v1-{operation.id}", "v2": f"copy-of-v2-{operation.id}"}
    operations.finish(operation, Settlement(Event.CREATED, succeeded=True, snapshots=copies), LATER)
    return operation


def arguments_of(action: Action) -> Arguments:
    match action:
        case Action.SNAPSHOT:
            return CreateArguments(("v1", "v2"))
        case Action.DELETE:
            return DeleteArguments()
        case _:
            return RestoreArguments(action, {"v1": "c1", "v2": "c2"}, force=True, safety_copies=True)


def following(earlier: Operation, action: Action, **given: Any) -> Operation:
    """Another operation on the same instance snapshot."""
    return sample_operation(
        arguments=arguments_of(action),
        snapshot_id=earlier.snapshot_id,
        instance_id=earlier.instance_id,
        project_id=earlier.project_id,
        created_at=LATER,
        **given,
    )


def restoring(operations: OperationStore, **given: Any) -> Operation:
    """An instance snapshot that is being restored to, by its operation."""
    operation = following(available(operations, **given), Action.RESTORE)
    operations.begin(operation, Event.RESTORE, Status.AVAILABLE, fence=True)
    return operation


def restore_failed(operations: OperationStore, **given: Any) -> Operation:
    """An instance snapshot whose restore failed, by the operation that failed."""
    operation = restoring(operations, **given)
    failure = Settlement(
        Event.RESTORE_FAILED,
        succeeded=False,
        fault=FAULT,
        temp_snapshots={"v1": "t1", "v2": "t2"},
        failed_snapshots={"v2": "c2"},
    )
    operations.finish(operation, failure, LATER)
    return operation


def deleting(operations: OperationStore, earlier: Operation, seen: Status = Status.AVAILABLE) -> Operation:
    """The deletion of an operation's instance snapshot, begun."""
    operation = following(earlier, Action.DELETE)
    operations.begin(operation, Event.DELETE, seen, fence=False)
    return operation
