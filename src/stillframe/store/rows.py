"""Rows to domain values and back, written out by hand so that neither side dictates the other's shape."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stillframe.domain import arguments, omission
from stillframe.domain.arguments import Action
from stillframe.domain.errors import InvalidInput
from stillframe.domain.operation import FlowRecord, Operation, OperationState
from stillframe.domain.snapshot import Consistency, ConsistencyLevel, Fault, InstanceSnapshot
from stillframe.domain.status import Status
from stillframe.store.tables import SNAPSHOTS, TIME

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def snapshot_from_row(row: sa.RowMapping) -> InstanceSnapshot:
    return InstanceSnapshot(
        id=row["id"],
        project_id=row["project_id"],
        user_id=row["user_id"],
        instance_id=row["instance_id"],
        name=row["name"],
        description=row["description"],
        status=Status(row["status"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        task_id=row["task_id"],
        action=row["action"],
        snapshots=row["snapshots"],
        temp_snapshots=row["temp_snapshots"],
        failed_snapshots=row["failed_snapshots"],
        fault=_fault_from_json(row["fault"]),
        consistency=_consistency_from_json(row["consistency"]),
        minimum_consistency=ConsistencyLevel(row["minimum_consistency"] or ConsistencyLevel.NONE),
        untouched=_untouched_from_json(row["untouched"], row["task_id"]),
    )


def snapshot_to_row(snapshot: InstanceSnapshot) -> dict[str, Any]:
    return {
        "id": snapshot.id,
        "project_id": snapshot.project_id,
        "user_id": snapshot.user_id,
        "instance_id": snapshot.instance_id,
        "name": snapshot.name,
        "description": snapshot.description,
        "status": snapshot.status.value,
        "created_at": snapshot.created_at,
        "updated_at": snapshot.updated_at,
        "task_id": snapshot.task_id,
        "action": snapshot.action,
        "snapshots": _map_to_json(snapshot.snapshots),
        "temp_snapshots": _map_to_json(snapshot.temp_snapshots),
        "failed_snapshots": _map_to_json(snapshot.failed_snapshots),
        "fault": fault_to_json(snapshot.fault),
        "consistency": consistency_to_json(snapshot.consistency),
        "minimum_consistency": snapshot.minimum_consistency.value,
        "untouched": untouched_to_json(snapshot.untouched, snapshot.task_id),
    }


def operation_from_row(row: sa.RowMapping) -> Operation:
    return Operation(
        id=row["id"],
        arguments=arguments.from_data(Action(row["action"]), row["arguments"]),
        snapshot_id=row["snapshot_id"],
        project_id=row["project_id"],
        instance_id=row["instance_id"],
        request_id=row["request_id"],
        state=OperationState(row["state"]),
        created_at=row["created_at"],
        deadline=row["deadline"],
        attempts=row["attempts"],
        progress=row["progress"],
        committed=bool(row["committed"]),
        finished_at=row["finished_at"],
        record=_record_from_json(row["record"]),
        generation=row["generation"],
        limit_keys=tuple(row["places"] or ()),
        fault=_fault_from_json(row["fault"]),
    )


def operation_to_row(operation: Operation) -> dict[str, Any]:
    return {
        "id": operation.id,
        "action": operation.action.value,
        "snapshot_id": operation.snapshot_id,
        "project_id": operation.project_id,
        "instance_id": operation.instance_id,
        "request_id": operation.request_id,
        "state": operation.state.value,
        "created_at": operation.created_at,
        "deadline": operation.deadline,
        "finished_at": operation.finished_at,
        "arguments": arguments.to_data(operation.arguments),
        "attempts": operation.attempts,
        "progress": operation.progress,
        "committed": operation.committed,
        "record": None if operation.record is None else record_to_json(operation.record),
        "generation": operation.generation,
        "places": list(operation.limit_keys),
        "fault": fault_to_json(operation.fault),
    }


def fitting(table: sa.Table, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values themselves; raises `InvalidInput` for text that not every kind of database would keep as it is."""
    for key, value in values.items():
        if not isinstance(value, str):
            continue
        kind = table.c[key].type
        length = kind.length if isinstance(kind, sa.String) else None
        if length is not None and len(value) > length:
            raise InvalidInput(f"must not be longer than {length} characters", key)
        if "\0" in value:
            raise InvalidInput("must not contain a NUL character", key)
    return values


def not_before_creation(now: datetime) -> sa.ColumnElement[Any]:
    """The time of a snapshot's change: a clock that was set back does not let it lie before its creation."""
    given = sa.literal(now, TIME)
    return sa.case((SNAPSHOTS.c.created_at > given, SNAPSHOTS.c.created_at), else_=given)


def fault_to_json(fault: Fault | None) -> dict[str, Any] | None:
    if fault is None:
        return None
    return {"code": fault.code, "message": fault.message, "created_at": fault.created_at.isoformat()}


def record_to_json(record: FlowRecord) -> dict[str, Any]:
    return {
        "flow_details": dict(record.flow_details),
        "completed_tasks": dict(record.completed_tasks),
        "pending_tasks": dict(record.pending_tasks),
    }


def untouched_to_json(volume_ids: Collection[str], task_id: str | None) -> dict[str, Any] | None:
    """With the operation after which it holds: another one, of a release that does not know of it, takes it back."""
    return {"task_id": task_id, "volumes": sorted(volume_ids)} if volume_ids else None


def consistency_to_json(consistency: Consistency | None) -> dict[str, Any] | None:
    if consistency is None:
        return None
    return {
        "level": consistency.level.value,
        "cut_window_ms": consistency.cut_window_ms,
        "reason": consistency.reason,
        "omissions": omission.as_data(consistency.omissions),
    }


def _record_from_json(value: Any) -> FlowRecord | None:
    if value is None:
        return None
    return FlowRecord(value["flow_details"], value["completed_tasks"], value["pending_tasks"])


def _untouched_from_json(value: Any, task_id: str | None) -> frozenset[str]:
    return frozenset(value["volumes"]) if value is not None and value["task_id"] == task_id else frozenset()


def _fault_from_json(value: Any) -> Fault | None:
    if value is None:
        return None
    return Fault(value["code"], value["message"], datetime.fromisoformat(value["created_at"]))


def _consistency_from_json(value: Any) -> Consistency | None:
    if value is None:
        return None
    # Rows of earlier releases have no reason and no omissions.
    level, omissions = ConsistencyLevel(value["level"]), omission.from_data(value.get("omissions"))
    return Consistency(level, value["cut_window_ms"], value.get("reason"), omissions)


def _map_to_json(value: Any) -> dict[str, str] | None:
    return None if value is None else dict(value)
