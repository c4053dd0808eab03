"""The ten operations on instance snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stillframe.api import schemas
from stillframe.api.listing import page_limit, parse_sort
from stillframe.domain.snapshot import ConsistencyLevel
from stillframe.store.snapshots import FILTERS, ListQuery

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from stillframe.api.exchange import Exchange
    from stillframe.domain.omission import Omission
    from stillframe.domain.snapshot import Fault, InstanceSnapshot
    from stillframe.service.instance_snapshots import Accepted

_TIME: Final = "%Y-%m-%dT%H:%M:%S.%f"


def create(exchange: Exchange) -> schemas.CreateReply:
    body: schemas.VmSnapshot = exchange.body
    accepted = exchange.services.snapshots.create(
        exchange.caller,
        exchange.ids["server_id"],
        body.name,
        body.description or "",
        body.volumes or (),
        ConsistencyLevel(body.minimum_consistency or ConsistencyLevel.NONE),
    )
    created = schemas.CreatedSnapshot(task_uri=_task_uri(exchange, accepted), id=accepted.snapshot_id)
    return schemas.CreateReply(instance_snapshot=created)


def restore(exchange: Exchange) -> schemas.TaskReply:
    """Restore, retry or roll back, as the body says."""
    body: schemas.VmRestore = exchange.body
    service = exchange.services.snapshots
    use_case = service.retry if body.retry else service.rollback if body.rollback else service.restore
    accepted = use_case(exchange.caller, exchange.ids["server_id"], body.instance_snapshot_id, force=body.force)
    return schemas.TaskReply(task_uri=_task_uri(exchange, accepted), notice=accepted.notice)


def list_page(exchange: Exchange) -> schemas.ListReply:
    query: schemas.ListQuery = exchange.query
    limit = page_limit(query.limit, exchange.services.max_limit)
    found = exchange.services.snapshots.list(
        exchange.caller,
        ListQuery(
            project_id=None,
            # One more than asked for tells whether there is another page.
            limit=limit + 1,
            marker=query.marker,
            filters={name: value for name in FILTERS if (value := getattr(query, name)) is not None},
            sort=parse_sort(query.sort, query.sort_key, query.sort_dir),
        ),
        all_projects=query.all_tenants,
    )
    page = found[:limit]
    links = None
    if page and len(found) > limit:
        links = [schemas.Link(rel="next", href=exchange.links.next_page(page[-1].id))]
    return schemas.ListReply(instance_snapshots=[_view(exchange, one) for one in page], instance_snapshots_links=links)


def show(exchange: Exchange) -> schemas.ShowReply:
    snapshot = exchange.services.snapshots.show(exchange.caller, exchange.ids["id"])
    return schemas.ShowReply(instance_snapshot=_view(exchange, snapshot))


def update(exchange: Exchange) -> schemas.UpdateReply:
    body: schemas.UpdateSnapshot = exchange.body
    snapshot_id = exchange.ids["id"]
    exchange.services.snapshots.update(exchange.caller, snapshot_id, body.changes())
    return schemas.UpdateReply(instance_snapshot=schemas.UpdatedSnapshot(id=snapshot_id))


def delete(exchange: Exchange) -> schemas.TaskReply:
    accepted = exchange.services.snapshots.delete(exchange.caller, exchange.ids["id"])
    return schemas.TaskReply(task_uri=_task_uri(exchange, accepted))


def progress(exchange: Exchange) -> schemas.ProgressReply:
    query: schemas.ProgressQuery = exchange.query
    measured = exchange.services.snapshots.progress(exchange.caller, query.action, query.task_id, query.id)
    details = schemas.ProgressDetails(
        progress=measured.percent,
        flow_details=dict(measured.flow_details),
        completed_tasks=dict(measured.completed_tasks),
        pending_tasks=dict(measured.pending_tasks),
        finished_at=None if measured.finished_at is None else _time(measured.finished_at),
        fault=_fault(measured.fault),
        estimated_seconds_left=measured.seconds_left,
        queue_position=measured.queue_position,
        plan=_map(measured.plan),
        not_included=_omissions(measured.omissions),
    )
    return schemas.ProgressReply(details=details)


def copy_progress(exchange: Exchange) -> schemas.CopyDetailsReply:
    body: schemas.CopyProgress = exchange.body
    mappings = exchange.services.instances.flashcopy_mappings(
        exchange.caller, exchange.ids["volume_id"], details=body.details
    )
    return schemas.CopyDetailsReply(copy_details=[dict(mapping) for mapping in mappings])


def _task_uri(exchange: Exchange, accepted: Accepted) -> str:
    return exchange.links.task(
        exchange.caller.project_id, accepted.action.value, accepted.task_id, accepted.snapshot_id
    )


def _view(exchange: Exchange, snapshot: InstanceSnapshot) -> schemas.SnapshotView:
    consistency, task_uri = None, None
    if snapshot.consistency is not None:
        consistency = schemas.ConsistencyView(
            level=snapshot.consistency.level.value,
            cut_window_ms=snapshot.consistency.cut_window_ms,
            reason=snapshot.consistency.reason,
        )
    if snapshot.task_id is not None and snapshot.action is not None:
        task_uri = exchange.links.task(exchange.caller.project_id, snapshot.action, snapshot.task_id, snapshot.id)
    return schemas.SnapshotView(
        id=snapshot.id,
        name=snapshot.name,
        description=snapshot.description,
        status=snapshot.status.value,
        instance_id=snapshot.instance_id,
        created_at=_time(snapshot.created_at),
        updated_at=None if snapshot.updated_at is None else _time(snapshot.updated_at),
        task_uri=task_uri,
        snapshots=_map(snapshot.snapshots),
        temp_snapshots=_map(snapshot.temp_snapshots),
        failed_snapshots=_map(snapshot.failed_snapshots),
        project_id=snapshot.project_id,
        user_id=snapshot.user_id,
        fault=_fault(snapshot.fault),
        consistency=consistency,
        minimum_consistency=snapshot.minimum_consistency.value,
        not_included=_omissions(None if snapshot.consistency is None else snapshot.consistency.omissions),
        guest_may_be_held=exchange.services.snapshots.may_be_held(snapshot),
    )


def _omissions(omissions: Sequence[Omission] | None) -> list[schemas.OmissionView] | None:
    if omissions is None:
        return None
    return [schemas.OmissionView(kind=one.kind, volume_id=one.volume_id, why=one.why) for one in omissions]


def _fault(fault: Fault | None) -> schemas.FaultView | None:
    if fault is None:
        return None
    return schemas.FaultView(code=fault.code, message=fault.message, created_at=_time(fault.created_at))


def _time(moment: datetime) -> str:
    return moment.strftime(_TIME)


def _map(value: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if value is None else dict(value)
